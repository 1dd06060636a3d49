"""`/v1/models/{name}[@{ref}]/predict`: rows in, predictions out, in order."""

import asyncio
from typing import Annotated

from litestar import Controller, post
from litestar.params import PathParameter, QueryParameter

from core.data.instances import BadInstance
from core.errors import UnsupportedMedia
from modelyard.specs import Method, Prediction, PredictReply, PredictRequest, Problem
from service.auth import Scope, needs
from service.bodies import MIB, AnyRequest, decode, read_body
from service.explanations import predict_explained
from service.inference.names import Found
from service.parts import Parts, Wired
from service.prediction_bodies.columns import Takes
from service.prediction_bodies.form import MEDIA_TYPE as FORM_TYPE
from service.prediction_bodies.reading import MEDIA_TYPES as ROW_TYPES
from service.prediction_bodies.reading import read_rows
from service.schema import BINARY, body, form

MAX_BODY_BYTES = 32 * MIB
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
BODIES = ("application/json", *IMAGE_TYPES, *ROW_TYPES)

Reference = Annotated[
    str, PathParameter(description="`name`, or `name@` and a version, an alias or `latest`")
]
TopK = Annotated[int, QueryParameter(ge=1, le=1000, description="how many classes, for a body without it")]
Explain = Annotated[Method | None, QueryParameter(description="explain the answers, for a body without it")]


class Predictions(Controller):
    path = "/v1/models"
    tags = ("models",)

    @post(
        "/{model:str}/predict",
        opt=needs(Scope.PREDICT),
        status_code=200,
        request_max_body_size=MAX_BODY_BYTES,
        operation_class=body(
            "application/json",
            PredictRequest,
            also=[kind for kind in BODIES[1:] if kind != FORM_TYPE],
            forms=form("image", image=BINARY),
        ),
    )
    async def predict(
        self,
        request: AnyRequest,
        parts: Wired,
        model: Reference,
        top_k: TopK = 1,
        explain: Explain = None,
    ) -> PredictReply:
        """`{"instances": […]}` as JSON, one image as the body, several as a form, rows as CSV or as an Arrow
        stream. A row that is unreadable has its error."""
        kind = request.content_type[0]
        if kind not in BODIES:
            raise UnsupportedMedia(f"Expected {' or '.join(BODIES)}, got {kind[:100]!r}.")
        name, _, reference = model.partition("@")
        found = await parts.names.resolve(request.user.owner, name, reference if "@" in model else None)
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdigit() and len(announced) < 20 else MAX_BODY_BYTES
        with parts.body_room.taken(min(size, MAX_BODY_BYTES)):
            return await _answer(request, parts, found, kind, top_k, explain)


async def _answer(
    request: AnyRequest, parts: Parts, found: Found, kind: str, top_k: int, explain: Method | None
) -> PredictReply:
    timeout_s = parts.settings.chunk_timeout_s
    if kind in ROW_TYPES:
        rows = await read_rows(request, limit=MAX_BODY_BYTES, timeout_s=timeout_s)
        manifest = (await parts.served(found)).predictor.manifest
        instances = await asyncio.to_thread(rows, Takes(manifest.kind, manifest.prepare))
        return await predict_explained(parts, found, instances, top_k, MAX_BODY_BYTES, explain)
    raw = await read_body(request, limit=MAX_BODY_BYTES, timeout_s=timeout_s)
    if kind == "application/json":
        asked = decode(raw, PredictRequest)
        return await predict_explained(parts, found, asked.instances, asked.top_k, len(raw), asked.explain)
    reply = await predict_explained(parts, found, [raw], top_k, len(raw), explain)
    require_readable(reply.predictions[0])
    return reply


def require_readable(prediction: Prediction) -> None:
    """What is wrong with the only instance is wrong with the request. Raises BadInstance."""
    if isinstance(prediction.error, Problem):
        raise BadInstance(prediction.error.detail, code=prediction.error.code)
