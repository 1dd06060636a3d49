"""From the body of an infer request to the body of its answer, with what it took."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

import torch
from numpy.typing import NDArray

from core.data.manifest import Kind
from core.errors import TimedOut
from core.tensors import named_outputs, no_outputs, rows_of
from service.bodies import MIB
from service.inference.names import Found
from service.inference.statistics import Stages
from service.open_inference.compression import accepted, deflated, inflated
from service.open_inference.describe import signature_of
from service.open_inference.replies import Encoded, encode_reply, require_outputs
from service.open_inference.requests import Asked, read_request
from service.parts import Parts
from service.predicting import SMALL_ROWS

#: Of a body as it comes, and of what it inflates to.
MAX_BODY_BYTES = 64 * MIB

#: A larger body is read off the event loop, and so is a compressed one; a larger reply is compressed there.
_LARGE_BYTES = 64 * 1024
#: So many values of outputs are written off the event loop.
_MANY_VALUES = 4096

HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Computed:
    outputs: dict[str, NDArray[Any]]
    rows: int
    stages: Stages


async def infer(
    parts: Parts, found: Found, body: bytes, header_length: str | None, content_encoding: str = ""
) -> Encoded:
    """Raises what `inflated`, `read_request` and `rows_of` raise, TimedOut beyond the `timeout` that the
    request says, Unavailable where too many wait."""
    started = perf_counter_ns()
    version = found[0]
    counted = parts.statistics.of(version)
    try:
        asked = await _read(body, header_length, content_encoding)
        signature = signature_of(version)
        require_outputs(asked.request.outputs, signature)
        with parts.body_room.taken(asked.size_bytes):  # an inflated body is larger than what came
            computed = await _within(asked.request.parameters.timeout, _computed(parts, found, asked))
        encoding = partial(
            encode_reply,
            asked.request,
            version.model,
            version.version,
            computed.outputs,
            signature,
            version.classes,
        )
        num_values = sum(output.size for output in computed.outputs.values())
        encoded = await asyncio.to_thread(encoding) if num_values > _MANY_VALUES else encoding()
    except Exception as error:
        counted.failed(perf_counter_ns() - started, error)
        raise
    counted.answered(computed.rows, perf_counter_ns() - started, computed.stages)
    return encoded


async def compressed(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """The body as the client takes it, and its `Content-Encoding`."""
    encoding = accepted(accept_encoding)
    if encoding is None:
        return body, None
    work = partial(deflated, body, encoding)
    return (await asyncio.to_thread(work) if len(body) > _LARGE_BYTES else work()), encoding


async def _read(body: bytes, header_length: str | None, content_encoding: str) -> Asked:
    encoding = content_encoding.strip().lower()
    work = partial(_read_request, body, encoding, header_length)
    return await asyncio.to_thread(work) if encoding or len(body) > _LARGE_BYTES else work()


def _read_request(body: bytes, encoding: str, header_length: str | None) -> Asked:
    return read_request(inflated(body, encoding, MAX_BODY_BYTES), header_length)


async def _computed(parts: Parts, found: Found, asked: Asked) -> Computed:
    served = await parts.served(found)
    predictor = served.predictor
    started_ns = perf_counter_ns()
    decode = partial(rows_of, predictor, asked.tensors)
    if _is_short(predictor.manifest.kind, asked):
        rows = decode()
    else:
        with served.batcher.reading(asked.num_rows):
            rows = await asyncio.to_thread(decode)
    decoded_ns = perf_counter_ns()
    parts_BC = await served.outputs(rows) if rows else []
    inferred_ns = perf_counter_ns()
    outputs_BC = [part.answers.reshape(part.rows, -1) for part in parts_BC]
    whole_BC = (
        outputs_BC[0]
        if len(outputs_BC) == 1
        else torch.cat([no_outputs(predictor.manifest.signature), *outputs_BC])
    )
    outputs = named_outputs(predictor.manifest, whole_BC)
    stages = Stages.between(started_ns, decoded_ns, inferred_ns, perf_counter_ns(), parts_BC)
    return Computed(outputs, len(rows), stages)


def _is_short(kind: Kind, asked: Asked) -> bool:
    """Whether making its rows takes no time worth speaking of: few of them, and no encoded images, which may
    be of any size once they are decoded."""
    is_encoded = kind is Kind.IMAGES and any(array.dtype == object for array in asked.tensors.values())
    return asked.size_bytes <= _LARGE_BYTES and asked.num_rows <= SMALL_ROWS and not is_encoded


async def _within(timeout_us: int, computing: Coroutine[None, None, Computed]) -> Computed:
    """0 is no bound."""
    if not timeout_us:
        return await computing
    limit = asyncio.timeout(timeout_us / 1e6)
    try:
        async with limit:
            return await computing
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimedOut(
            f"Expected an answer within {timeout_us} microseconds, as the request's timeout says; there was "
            "none. Ask again, or say more.",
        ) from error
