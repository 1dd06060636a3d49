"""`/v2/repository` and `…/stats`: what is in memory, loading and unloading it, what it was asked."""

from typing import TypeVar

import msgspec
from litestar import Controller, get, post

from core.db.statements import models
from core.errors import Invalid
from service.api.catalogue import versions
from service.api.open_inference import ModelPath, ReferencePath
from service.auth import Scope, needs
from service.bodies import MIB, AnyRequest, decode, read_body
from service.open_inference.describe import IndexEntry, StatisticsReply, index_entry, model_statistics
from service.open_inference.requests import IndexRequest, LoadRequest, UnloadRequest
from service.parts import Parts, Wired
from service.residents import unload
from service.schema import body

MAX_BODY_BYTES = MIB

T = TypeVar("T", bound=msgspec.Struct)


class OpenInferenceStatistics(Controller):
    path = "/v2/models"
    tags = ("open inference",)
    opt = needs(Scope.READ, takes_basic=True)

    @get("/stats")
    async def all_stats(self, request: AnyRequest, parts: Wired) -> StatisticsReply:
        """Of every ready version, the newest 1,000, since this process started."""
        return await _statistics(request, parts, None)

    @get("/{model:str}/stats")
    async def stats(self, request: AnyRequest, parts: Wired, model: ModelPath) -> StatisticsReply:
        """Of every ready version of the model."""
        return await _statistics(request, parts, model)

    @get("/{model:str}/versions/{reference:str}/stats")
    async def version_stats(
        self, request: AnyRequest, parts: Wired, model: ModelPath, reference: ReferencePath
    ) -> StatisticsReply:
        version, _ = await parts.names.resolve(request.user.owner, model, reference)
        counted = parts.statistics.read(version.id)
        return StatisticsReply([model_statistics(model, version.version, counted)])


class OpenInferenceRepository(Controller):
    """Loading and unloading need what predicting needs, and no more: a prediction loads too, an unloaded
    version is loaded by the next one, and nothing that is stored changes."""

    path = "/v2/repository"
    tags = ("open inference",)
    opt = needs(Scope.PREDICT, takes_basic=True)

    @post(
        "/index",
        opt=needs(Scope.READ, takes_basic=True),
        status_code=200,
        operation_class=body("application/json", IndexRequest, is_required=False),
    )
    async def index(self, request: AnyRequest, parts: Wired) -> list[IndexEntry]:
        """Every version with its state, the newest 1,000; `{"ready": true}` only those that answer."""
        asked = await _decoded(request, parts, IndexRequest)
        entries = [
            index_entry(one.model, one.version, one.state, parts.models.residence(one.id))
            for one in await versions(parts.database, request.user.owner)
        ]
        return [entry for entry in entries if entry.state == "READY" or not asked.ready]

    @post(
        "/models/{model:str}/load",
        status_code=200,
        operation_class=body("application/json", LoadRequest, is_required=False),
    )
    async def load(self, request: AnyRequest, parts: Wired, model: ModelPath) -> None:
        """Reads the version that the model's name stands for into memory, anew where it is there, and replays
        its golden samples. The reply comes when it is ready."""
        asked = await _decoded(request, parts, LoadRequest)
        if asked.parameters:
            raise Invalid(
                "A model is loaded as it was registered; leave out "
                f"{', '.join(sorted(asked.parameters))[:200]}.",
                code="not_overridable",
            )
        found = await parts.names.resolve(request.user.owner, model, None)
        await parts.models.unload([found[0].id])
        await parts.served(found)

    @post(
        "/models/{model:str}/unload",
        status_code=200,
        operation_class=body("application/json", UnloadRequest, is_required=False),
    )
    async def unload(self, request: AnyRequest, parts: Wired, model: ModelPath) -> None:
        """Takes every version of the model out of memory. Requests under way are answered first; the next one
        loads what it needs again."""
        await _decoded(request, parts, UnloadRequest)
        await unload(parts, model, await versions(parts.database, request.user.owner, model))


async def _statistics(request: AnyRequest, parts: Parts, model: str | None) -> StatisticsReply:
    listed = await versions(parts.database, request.user.owner, model)
    return StatisticsReply(
        [
            model_statistics(one.model, one.version, parts.statistics.read(one.id))
            for one in listed
            if one.state == models.READY
        ]
    )


async def _decoded(request: AnyRequest, parts: Parts, kind: type[T]) -> T:
    """All defaults where nothing is sent."""
    raw = await read_body(request, limit=MAX_BODY_BYTES, timeout_s=parts.settings.chunk_timeout_s)
    return decode(raw or b"{}", kind)
