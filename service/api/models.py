"""`/v1/models`: models, their versions, the aliases that point at them."""

import re
from collections import defaultdict
from collections.abc import Sequence

from litestar import Controller, delete, get, put
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Alias, utc_now
from core.db.models import Version as Row
from core.db.statements import models
from core.errors import Conflict, Invalid, NotFound
from modelyard.specs import AliasUpdate, Model, ModelVersion, Page, ProblemError
from modelyard.specs.common import NAME_PATTERN
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, AliasPath, Limit, NamePath, VersionPath
from service.auth import Scope, needs
from service.bodies import AnyRequest, decode, read_body, require_json
from service.inference.names import MAX_NUMBER, unknown_model
from service.parts import Wired
from service.schema import body
from service.views import version_view, whole_version_view

MAX_ALIAS_BYTES = 4096

#: Words that already mean a version.
TAKEN = frozenset({"latest", "best"})


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
            found = await _models(session, owner, [row.model for row in rows])
        return page_of(rows, limit, lambda row: found[row.model], lambda row: row.id)

    @get("/{name:str}", opt=needs(Scope.READ))
    async def show(self, request: AnyRequest, parts: Wired, name: NamePath) -> Model:
        async with parts.database.read() as session:
            return await require_model(session, request.user.owner, name)

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
            row = (await session.scalars(models.get_version(owner, name, version))).one_or_none()
        if row is None:
            raise NotFound(f"{name} has no version {version}; GET /v1/models/{name}/versions lists them.")
        return whole_version_view(row, _aliases(model, row))

    @put(
        "/{name:str}/aliases/{alias:str}",
        opt=needs(Scope.PROMOTE),
        operation_class=body("application/json", AliasUpdate),
    )
    async def set_alias(self, request: AnyRequest, parts: Wired, name: NamePath, alias: AliasPath) -> Model:
        """Points the alias at a ready version, at once for every prediction that comes after."""
        require_json(request)
        raw = await read_body(request, limit=MAX_ALIAS_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        wanted = decode(raw, AliasUpdate)
        _require_alias_name(alias)
        owner = request.user.owner
        async with parts.database.write() as session:
            await require_model(session, owner, name)
            await _require_ready(session, owner, name, wanted.version)
            row = Alias(owner=owner, model=name, alias=alias, version=wanted.version, updated_at=utc_now())
            await session.merge(row)
            await session.commit()
            parts.names.forget(owner, name)
            return await require_model(session, owner, name)

    @delete("/{name:str}/aliases/{alias:str}", opt=needs(Scope.PROMOTE))
    async def remove_alias(self, request: AnyRequest, parts: Wired, name: NamePath, alias: AliasPath) -> None:
        owner = request.user.owner
        async with parts.database.write() as session:
            model = await require_model(session, owner, name)
            if alias not in model.aliases:
                raise NotFound(f"{name} has no alias {alias[:100]!r}; it has {_listed(model.aliases)}.")
            await session.execute(models.delete_alias(owner, name, alias))
            await session.commit()
        parts.names.forget(owner, name)


async def require_model(session: AsyncSession, owner: str, name: str) -> Model:
    found = await _models(session, owner, [name])
    if name not in found:
        raise unknown_model(name)
    return found[name]


async def _models(session: AsyncSession, owner: str, names: Sequence[str]) -> dict[str, Model]:
    aliases: dict[str, dict[str, int]] = defaultdict(dict)
    for alias in await session.scalars(models.aliases_of(owner, list(names))):
        aliases[alias.model][alias.alias] = alias.version
    rows = (await session.execute(models.summaries(owner, list(names)))).all()
    return {name: Model(name, created_at, latest, aliases[name]) for name, created_at, latest in rows}


def _aliases(model: Model, row: Row) -> list[str]:
    return [alias for alias, version in model.aliases.items() if version == row.version]


def _listed(aliases: dict[str, int]) -> str:
    return ", ".join(aliases) or "none"


def _require_alias_name(alias: str) -> None:
    if re.fullmatch(NAME_PATTERN, alias) is None or alias.isdigit() or alias in TAKEN:
        raise Invalid(
            f"An alias matches {NAME_PATTERN}, is not all digits and not {' or '.join(sorted(TAKEN))}; "
            f"got {alias[:100]!r}.",
            code="invalid_alias",
        )


async def _require_ready(session: AsyncSession, owner: str, name: str, number: int) -> None:
    row = None
    if number <= MAX_NUMBER:
        row = (await session.scalars(models.get_version(owner, name, number))).one_or_none()
    if row is None:
        message = f"{name} has no version {number}"
        raise Invalid(
            f"{message}.",
            code="unknown_version",
            errors=[ProblemError("/version", "unknown_version", message)],
        )
    if row.state != models.READY:
        raise Conflict(f"{name}@{number} is {row.state}: it cannot predict.", code="version_not_ready")
