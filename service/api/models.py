"""`/v1/models`: models and their versions."""

from litestar import Controller, delete, get, post
from msgspec.structs import replace

from core.db.models import Version as Row
from core.db.statements import models
from modelyard.specs import Model, ModelVersion, Page, Unloaded
from service.api.catalogue import versions
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, Limit, NamePath, VersionPath
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.models import models_of, require_model, require_version
from service.parts import Wired
from service.residents import loaded_versions, unload
from service.versions import delete_version
from service.views import version_view, whole_version_view


class Models(Controller):
    path = "/v1/models"
    tags = ("models",)

    @get(opt=needs(Scope.READ))
    async def list_all(
        self, request: AnyRequest, parts: Wired, limit: Limit = DEFAULT_LIMIT, after: After = None
    ) -> Page[Model]:
        owner = request.user.owner
        async with parts.database.read() as session:
            rows = list(await session.scalars(models.list_models(owner, after, limit)))
            found = await models_of(session, owner, [row.model for row in rows])
        return page_of(rows, limit, lambda row: found[row.model], lambda row: row.id)

    @get("/{name:str}", opt=needs(Scope.READ))
    async def show(self, request: AnyRequest, parts: Wired, name: NamePath) -> Model:
        owner = request.user.owner
        async with parts.database.read() as session:
            model = await require_model(session, owner, name)
        return replace(model, loaded=loaded_versions(parts, await versions(parts.database, owner, name)))

    @post("/{name:str}/unload", opt=needs(Scope.PREDICT), status_code=200)
    async def unload(self, request: AnyRequest, parts: Wired, name: NamePath) -> Unloaded:
        """Takes every version of the model out of the memory of this process. Requests under way are answered
        first; the next one loads what it needs again."""
        return await unload(parts, name, await versions(parts.database, request.user.owner, name))

    @get("/{name:str}/versions", opt=needs(Scope.READ))
    async def list_versions(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[ModelVersion]:
        owner = request.user.owner
        async with parts.database.read() as session:
            model = await require_model(session, owner, name)
            rows = list(await session.scalars(models.list_versions(owner, name, after, limit)))
        return page_of(rows, limit, lambda row: version_view(row, _aliases(model, row)), lambda row: row.id)

    @get("/{name:str}/versions/{version:int}", opt=needs(Scope.READ))
    async def show_version(
        self, request: AnyRequest, parts: Wired, name: NamePath, version: VersionPath
    ) -> ModelVersion:
        owner = request.user.owner
        async with parts.database.read() as session:
            model = await require_model(session, owner, name)
            row = await require_version(session, owner, name, version)
        return whole_version_view(row, _aliases(model, row))

    @delete("/{name:str}/versions/{version:int}", opt=needs(Scope.PROMOTE))
    async def remove_version(
        self, request: AnyRequest, parts: Wired, name: NamePath, version: VersionPath
    ) -> None:
        """409 while an alias names it, or a job goes on from it. Its number is not given again."""
        await delete_version(parts, request.user.owner, name, version)


def _aliases(model: Model, row: Row) -> list[str]:
    return [alias for alias, version in model.aliases.items() if version == row.version]
