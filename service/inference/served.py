"""A loaded version that answers: its predictor behind a batcher, on the event loop or the engine's thread."""

from collections.abc import Awaitable, Sequence
from functools import partial
from time import perf_counter, thread_time

import torch
from torch import Tensor

from core.predict import Predictor, Row
from service.caller import WhileThere
from service.inference.batcher import MAX_ROWS, Batcher, Computed, OnForward, Part
from service.inference.engine import Engine
from service.inference.statistics import VersionName

#: A forward of a full batch that takes no longer runs on the event loop: a thread would cost as much.
QUICK_S = 0.002


class Served:
    """`is_quick` is measured as it loads."""

    def __init__(
        self, name: VersionName, predictor: Predictor, engine: Engine, on_forward: OnForward
    ) -> None:
        self.name = name
        self.predictor = predictor
        self.size_bytes = predictor.size_bytes
        self.is_quick = full_batch_s(predictor) < QUICK_S
        if not self.is_quick:
            engine.wait(partial(warm, predictor))
        # Nothing of it refers back to this: the last caller of an unloaded version frees it as they leave.
        compute = partial(_compute, predictor, None if self.is_quick else engine)
        self.batcher: Batcher[Row, Tensor] = Batcher(compute, on_forward=on_forward)

    async def outputs(self, rows: Sequence[Row]) -> list[Part[Tensor]]:
        """What the rows come out as, [B, C] in each part. Raises Unavailable where too much waits, Malformed
        where the caller leaves before their turn."""
        asking = self.batcher.ask(rows, sum(x.nbytes for row in rows for x in row))
        if not self.batcher.lets_wait(len(rows)):
            return await asking
        with WhileThere():
            return await asking


def _compute(
    predictor: Predictor, engine: Engine | None, rows: list[Row]
) -> Computed[Tensor] | Awaitable[Computed[Tensor]]:
    compute = partial(timed, predictor, rows)
    return compute() if engine is None else engine.run(compute)


@torch.inference_mode()
def timed(predictor: Predictor, rows: list[Row]) -> Computed[Tensor]:
    """As `predictor.outputs`, of rows that are one batch."""
    began = perf_counter()
    inputs = predictor.batch(rows)
    transformed = perf_counter()
    answers = predictor.answers(inputs)
    return Computed(answers, perf_counter() - began, transformed - began)


def warm(predictor: Predictor) -> None:
    """What torch prepares once for each shape and number of threads, so that no request pays for it. Of a
    full batch it is left out where that takes so long that nobody would notice. What comes first is most
    likely a lone row: it is the last thing that was done."""
    samples = predictor.golden_rows()
    if not samples:
        return
    began = perf_counter()
    predictor.outputs(samples[:1])
    if perf_counter() - began < 10 * QUICK_S:
        predictor.outputs(_repeated(samples, MAX_ROWS))
    for _ in range(2):
        predictor.outputs(samples[:1])


def full_batch_s(predictor: Predictor) -> float:
    """Seconds of a forward of as many rows as a batch holds; that of one row, where that is too long already
    or there are no samples to try it with. Infinite for none."""
    samples = predictor.golden_rows()
    if not samples:
        return float("inf")
    one_s = _best_s(predictor, samples[:1])
    return one_s if one_s > QUICK_S else _best_s(predictor, _repeated(samples, MAX_ROWS))


def _repeated(samples: Sequence[Row], num_rows: int) -> list[Row]:
    return [samples[i % len(samples)] for i in range(num_rows)]


def _best_s(predictor: Predictor, rows: Sequence[Row]) -> float:
    """Of three: the first also warms. In time of the processor, so that a busy machine changes no answer; all
    of it is this thread's, which has no others."""
    seconds = []
    for _ in range(3):
        began = thread_time()
        predictor.outputs(rows)
        seconds.append(thread_time() - began)
        if seconds[-1] > 10 * QUICK_S:
            break
    return min(seconds)
