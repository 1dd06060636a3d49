"""Explanations beside predictions: asked of a child that is killed at its deadline, put where they belong."""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from core.errors import Gone, Invalid
from modelyard.specs import Method, Prediction, PredictReply, ProblemError
from service import explainer
from service.inference.names import Found
from service.parts import Parts
from service.predicting import predict

#: Each is as costly as dozens of predictions.
MAX_EXPLAINED = 16


async def predict_explained(
    parts: Parts,
    found: Found,
    instances: Sequence[Any],
    top_k: int,
    size_bytes: int,
    method: Method | None,
) -> PredictReply:
    """As `predict`, each prediction with what it rests on where a method is named; one that is an error stays
    as it is. Raises Invalid where the model can't be explained or it takes too long, Unavailable where too
    many wait."""
    if method is None:
        return await predict(parts, found, instances, top_k, size_bytes)
    _require_few(instances)
    reply = await predict(parts, found, instances, top_k, size_bytes)
    return replace(reply, predictions=await _explained(parts, found, method, instances, reply.predictions))


def _require_few(instances: Sequence[Any]) -> None:
    if len(instances) > MAX_EXPLAINED:
        message = f"At most {MAX_EXPLAINED} rows are explained at once, {len(instances)} came. Send fewer."
        raise Invalid(message, code="too_many", errors=[ProblemError("/instances", "too_many", message)])


async def _explained(
    parts: Parts,
    found: Found,
    method: Method,
    instances: Sequence[Any],
    predictions: Sequence[Prediction],
) -> list[Prediction]:
    version, weights = found
    rows = [
        explainer.row_of(instance, _index_of(prediction))
        for instance, prediction in zip(instances, predictions, strict=True)
        if prediction.error is UNSET
    ]
    if not rows:
        return list(predictions)
    try:
        manifest, file = await asyncio.to_thread(
            lambda: (parts.storage.fetch(version.manifest_key), parts.storage.fetch(weights.weights_key))
        )
    except FileNotFoundError as error:
        name = f"{version.model}@{version.version}"
        raise Gone(f"The files of {name} are no longer there.", code="collected") from error
    request = explainer.Explain(str(manifest), str(file), method, rows)
    explanations = iter(explainer.decode(await parts.explainer.ask(explainer.encode(request))))
    return [
        prediction if prediction.error is not UNSET else replace(prediction, explanation=next(explanations))
        for prediction in predictions
    ]


def _index_of(prediction: Prediction) -> int | None:
    """The class that was answered, or the label of the highest score; a regression has none."""
    if prediction.index is not UNSET:
        return prediction.index
    return prediction.top[0].index if prediction.top else None
