"""`/v1/models/{name}[@{ref}]/predict`: rows in, predictions out, in order."""

from typing import Annotated

from litestar import Controller, post
from litestar.params import PathParameter, QueryParameter

from core.data.instances import BadInstance
from core.errors import UnsupportedMedia
from modelyard.specs import Prediction, PredictReply, PredictRequest, Problem
from service.auth import Scope, needs
from service.bodies import MIB, AnyRequest, decode, read_body
from service.parts import Wired
from service.predicting import predict
from service.schema import body

MAX_BODY_BYTES = 32 * MIB
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})

#: Taken where it is set and no version is named.
DEFAULT_ALIAS = "production"

Reference = Annotated[
    str, PathParameter(description="`name`, or `name@` and a version, an alias or `latest`")
]
TopK = Annotated[int, QueryParameter(ge=1, le=1000, description="how many classes, for an image body")]


class Predictions(Controller):
    path = "/v1/models"
    tags = ("models",)

    @post(
        "/{model:str}/predict",
        opt=needs(Scope.PREDICT),
        status_code=200,
        request_max_body_size=MAX_BODY_BYTES,
        operation_class=body("application/json", PredictRequest, also=sorted(IMAGE_TYPES)),
    )
    async def predict(
        self, request: AnyRequest, parts: Wired, model: Reference, top_k: TopK = 1
    ) -> PredictReply:
        """`{"instances": […]}` as JSON, or one image as the body. A row that is unreadable has its error."""
        kind = request.content_type[0]
        if kind not in IMAGE_TYPES and kind != "application/json":
            raise UnsupportedMedia(
                f"Expected application/json or {', '.join(sorted(IMAGE_TYPES))}, got {kind[:100]!r}."
            )
        name, _, reference = model.partition("@")
        found = await parts.names.resolve(request.user.owner, name, reference if "@" in model else None)
        raw = await read_body(request, limit=MAX_BODY_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        if kind == "application/json":
            asked = decode(raw, PredictRequest)
            return await predict(parts, found, asked.instances, asked.top_k, len(raw))
        reply = await predict(parts, found, [raw], top_k, len(raw))
        require_readable(reply.predictions[0])
        return reply


def require_readable(prediction: Prediction) -> None:
    """What is wrong with the only instance is wrong with the request. Raises BadInstance."""
    if isinstance(prediction.error, Problem):
        raise BadInstance(prediction.error.detail, code=prediction.error.code)
