"""`/v2`: the Open Inference Protocol: health, what models there are, and what they answer."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.params import PathParameter

from core.errors import Unavailable
from service.api.catalogue import ready_numbers
from service.api.health import database_state
from service.auth import OPEN, Scope, needs
from service.bodies import AnyRequest, read_body
from service.inference.cache import Residence
from service.open_inference.describe import (
    ModelConfig,
    ModelMetadata,
    ServerMetadata,
    model_config,
    model_metadata,
    server_metadata,
)
from service.open_inference.inference import HEADER_LENGTH, MAX_BODY_BYTES, compressed, infer
from service.open_inference.requests import InferRequest
from service.parts import Parts, Wired
from service.schema import body

ModelPath = Annotated[str, PathParameter(description="a model's name")]
ReferencePath = Annotated[str | None, PathParameter(description="a version's number, an alias, or `latest`")]

_VERSION = "/{model:str}/versions/{reference:str}"


class OpenInferenceHealth(Controller):
    path = "/v2/health"
    tags = ("open inference",)
    opt = needs(OPEN)

    @get("/live", sync_to_thread=False)
    def live(self) -> dict[str, bool]:
        """200 while the process answers at all."""
        return {"live": True}

    @get("/ready")
    async def ready(self, parts: Wired) -> dict[str, bool]:
        """200 where requests are welcome, as `/health/ready` says it."""
        database = await database_state(parts)
        if database != "ok" or not parts.can_compute or parts.stopping.is_set():
            raise Unavailable(
                "This service is stopping, its database doesn't answer, or an inference process is being "
                "replaced; ask another, or later."
            )
        return {"ready": True}


class OpenInferenceServer(Controller):
    path = "/v2"
    tags = ("open inference",)
    opt = needs(Scope.READ, takes_basic=True)

    @get(sync_to_thread=False)
    def metadata(self) -> ServerMetadata:
        """Which extensions of the protocol are spoken."""
        return server_metadata()


class OpenInferenceModels(Controller):
    """Without a version: the alias `production` where it is set, else the newest that is ready."""

    path = "/v2/models"
    tags = ("open inference",)
    opt = needs(Scope.READ, takes_basic=True)

    @get(["/{model:str}", _VERSION])
    async def metadata(
        self, request: AnyRequest, parts: Wired, model: ModelPath, reference: ReferencePath = None
    ) -> ModelMetadata:
        """Names, datatypes and shapes of what the model takes and gives."""
        owner = request.user.owner
        version, _ = await parts.names.resolve(owner, model, reference)
        return model_metadata(version, await ready_numbers(parts.database, owner, model))

    @get(["/{model:str}/config", f"{_VERSION}/config"])
    async def config(
        self, request: AnyRequest, parts: Wired, model: ModelPath, reference: ReferencePath = None
    ) -> ModelConfig:
        """The same in the words of Triton's model configuration."""
        version, _ = await parts.names.resolve(request.user.owner, model, reference)
        return model_config(version)

    @get(["/{model:str}/ready", f"{_VERSION}/ready"])
    async def ready(
        self, request: AnyRequest, parts: Wired, model: ModelPath, reference: ReferencePath = None
    ) -> dict[str, str | bool]:
        """200 where a request would be answered; 503 once the version was unloaded, and while its inference
        process is being replaced."""
        version, _ = await parts.names.resolve(request.user.owner, model, reference)
        if parts.models.residence(version.id) is Residence.UNLOADED:
            raise Unavailable(
                f"{model}@{version.version} was unloaded; load it, or send a request, which loads it too.",
                code="unloaded",
            )
        if parts.processes is not None:
            parts.processes.require_up(version.id)
        return {"name": model, "ready": True}

    @post(
        ["/{model:str}/infer", f"{_VERSION}/infer"],
        opt=needs(Scope.PREDICT, takes_basic=True),
        status_code=200,
        request_max_body_size=MAX_BODY_BYTES,
        operation_class=body("application/json", InferRequest, also=["application/octet-stream"]),
    )
    async def infer(
        self, request: AnyRequest, parts: Wired, model: ModelPath, reference: ReferencePath = None
    ) -> Response[bytes]:
        """Tensors in, tensors out; in JSON, or as binary data after the JSON, gzip or deflate both ways."""
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdigit() and len(announced) < 20 else MAX_BODY_BYTES
        with parts.body_room.taken(min(size, MAX_BODY_BYTES)):
            return await _answer(request, parts, model, reference)


async def _answer(request: AnyRequest, parts: Parts, model: str, reference: str | None) -> Response[bytes]:
    raw = await read_body(
        request, limit=MAX_BODY_BYTES, timeout_s=parts.settings.chunk_timeout_s, may_be_encoded=True
    )
    found = await parts.names.resolve(request.user.owner, model, reference)
    headers = request.headers
    encoded = await infer(parts, found, raw, headers.get(HEADER_LENGTH), headers.get("content-encoding", ""))
    content, encoding = await compressed(encoded.body, headers.get("accept-encoding", ""))
    told = {"Content-Encoding": encoding} if encoding is not None else {}
    if encoded.json_length is not None:
        told[HEADER_LENGTH] = str(encoded.json_length)
    return Response(content, media_type=encoded.media_type, headers=told)
