"""`/v1/models/{name}[@{ref}]/predict`: rows in, predictions out, in order."""

from functools import partial
from typing import Annotated

from litestar import Controller, post
from litestar.params import PathParameter, QueryParameter
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Checkpoint, Version
from core.db.statements import models
from core.errors import Conflict, NotFound, UnsupportedMedia
from core.predict import Predictor
from modelyard.specs import Prediction, PredictReply, PredictRequest
from service.api.models import MAX_NUMBER, unknown_model
from service.auth import Scope, needs
from service.bodies import MIB, AnyRequest, decode, read_body
from service.inference.loading import load_version
from service.parts import Parts, Wired
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
        version, weights = await resolve(parts, request.user.owner, name, reference if "@" in model else None)
        raw = await read_body(request, limit=MAX_BODY_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        asked = decode(raw, PredictRequest) if kind == "application/json" else None
        predictor = await parts.models.get(version.id, partial(load_version, parts.storage, version, weights))
        if asked is None:
            predictions = [await parts.engine.run(partial(predictor.predict_image, raw, top_k))]
        else:
            predictions = await parts.engine.run(partial(_rows, predictor, asked))
        return PredictReply(name, version.version, predictions)


def _rows(predictor: Predictor, asked: PredictRequest) -> list[Prediction]:
    predictions = predictor.predict(asked.instances, asked.top_k)
    assert len(predictions) == len(asked.instances)
    return predictions


async def resolve(parts: Parts, owner: str, name: str, reference: str | None) -> tuple[Version, Checkpoint]:
    """The concrete version that a name stands for now, and its weights."""
    async with parts.database.read() as session:
        row = await _version(session, owner, name, reference)
        if row is None:
            first = (await session.scalars(models.first_version(owner, name))).one_or_none()
            if first is None:
                raise unknown_model(name)
            if reference is None or reference == "latest":
                raise Conflict(f"{name} has no ready version yet.", code="no_ready_version")
            raise NotFound(
                f"{name} has no version or alias {reference[:100]!r}; GET /v1/models/{name} lists them."
            )
        if row.state != models.READY:
            raise Conflict(
                f"{name}@{row.version} is {row.state}: it cannot predict.", code="version_not_ready"
            )
        weights = (await session.scalars(models.weights_of(row.id))).one()
    return row, weights


async def _version(session: AsyncSession, owner: str, name: str, reference: str | None) -> Version | None:
    if reference is not None and reference.isascii() and reference.isdigit():
        if len(reference) > len(str(MAX_NUMBER)) or int(reference) > MAX_NUMBER:
            return None
        return (await session.scalars(models.get_version(owner, name, int(reference)))).one_or_none()
    if reference != "latest":
        query = models.get_alias(owner, name, DEFAULT_ALIAS if reference is None else reference)
        alias = (await session.scalars(query)).one_or_none()
        if alias is not None:
            return (await session.scalars(models.get_version(owner, name, alias.version))).one_or_none()
        if reference is not None:
            return None
    return (await session.scalars(models.newest_ready(owner, name))).one_or_none()
