"""A loaded version that answers: its predictor behind a batcher, on the event loop or the engine's thread."""

from collections.abc import Awaitable, Sequence
from functools import partial
from time import perf_counter, thread_time

import torch
from torch import Tensor

from core.predict import Predictor, Row
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
        self._engine = engine
        self.batcher: Batcher[Row, Tensor] = Batcher(self._compute, on_forward=on_forward)

    async def outputs(self, rows: Sequence[Row]) -> list[Part[Tensor]]:
        """What the rows come out as, [B, C] in each part. Raises Unavailable where too much waits."""
        return await self.batcher.ask(rows, sum(x.nbytes for row in rows for x in row))

    def _compute(self, rows: list[Row]) -> Computed[Tensor] | Awaitable[Computed[Tensor]]:
        compute = partial(_timed, self.predictor, rows)
        return compute() if self.is_quick else self._engine.run(compute)


@torch.inference_mode()
def _timed(predictor: Predictor, rows: list[Row]) -> Computed[Tensor]:
    """As `predictor.outputs`, of rows that are one batch."""
    began = perf_counter()
    inputs = predictor.batch(rows)
    transformed = perf_counter()
    answers = predictor.answers(inputs)
    return Computed(answers, perf_counter() - began, transformed - began)


def full_batch_s(predictor: Predictor) -> float:
    """Seconds of a forward of as many rows as a batch holds; that of one row, where that is too long already
    or there are no samples to try it with. Infinite for none."""
    samples = predictor.golden_rows()
    if not samples:
        return float("inf")
    one_s = _best_s(predictor, samples[:1])
    return (
        one_s if one_s > QUICK_S else _best_s(predictor, [samples[i % len(samples)] for i in range(MAX_ROWS)])
    )


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
