"""From decoded instances to predictions: what each way of asking a model has in common."""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch

from core.data.instances import BadInstance
from modelyard.specs import PredictReply
from service.inference.names import Found
from service.inference.statistics import Stages
from service.parts import Parts

#: Rows from a body that is larger or has more, or from an encoded image, are made off the event loop.
SMALL_BYTES = 64 * 1024
SMALL_ROWS = 32
#: So many scores are put in words off the event loop.
MANY_SCORES = 4096


async def predict(
    parts: Parts, found: Found, instances: Sequence[Any], top_k: int, size_bytes: int
) -> PredictReply:
    """n instances in, n predictions out, in order; an instance is a JSON value, or the bytes of an image.
    `size_bytes` are those they came in. Raises what loading raises, and Unavailable where too much waits."""
    began_ns = perf_counter_ns()
    version = found[0]
    counted = parts.statistics.of(version)
    try:
        served = await parts.served(found)
        predictor = served.predictor
        started_ns = perf_counter_ns()
        decode = partial(predictor.decoded, instances)
        is_small = (
            size_bytes <= SMALL_BYTES and len(instances) <= SMALL_ROWS and not isinstance(instances[0], bytes)
        )
        if is_small:
            decoded = decode()
        else:
            with served.batcher.reading(len(instances)):
                decoded = await asyncio.to_thread(decode)
        rows = [row for row in decoded if not isinstance(row, BadInstance)]
        decoded_ns = perf_counter_ns()
        computed = await served.outputs(rows) if rows else []
        inferred_ns = perf_counter_ns()
        outputs = [part.answers for part in computed]
        whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs) if outputs else None
        word = partial(predictor.predictions, decoded, whole, top_k)
        is_short = len(decoded) * min(top_k, len(version.classes or [])) <= MANY_SCORES
        predictions = word() if is_short else await asyncio.to_thread(word)
    except Exception as error:
        counted.failed(perf_counter_ns() - began_ns, error)
        raise
    ended_ns = perf_counter_ns()
    stages = Stages.between(started_ns, decoded_ns, inferred_ns, ended_ns, computed)
    counted.answered(len(rows), ended_ns - began_ns, stages)
    return PredictReply(version.model, version.version, predictions)
