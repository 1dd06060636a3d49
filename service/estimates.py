"""How long a training will take, from what past ones took in the same pool.

A batch costs what every batch costs plus its multiply-adds; a step takes `accumulate` batches:

    seconds per batch = a + b * w,    w = multiply-adds of a batch, forward and backward

`b` is the median of the slopes between every two past trainings and `a` the median of what then remains: the
estimator of Theil and Sen (Sen 1968, "Estimates of the Regression Coefficient Based on Kendall's Tau",
https://doi.org/10.1080/01621459.1968.10480934), which almost a third of wild values cannot move.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.db.engines import AsyncDatabase
from core.db.statements import estimates, workers
from core.nets.plan import Checked
from service.pools import pool_of

#: A backward pass is about two forward passes: one product for the inputs' gradient, one for the weights'.
PASSES = 3

#: Of the newest so many trainings, those nearest in work a batch count.
NEWEST = 100
NEAREST = 20

#: Past trainings that lie nearer together than this say nothing of how the time grows with the work.
MIN_SPREAD = 2.0

KEPT_S = 10.0


@dataclass(frozen=True)
class Training:
    """`seconds_per_batch` of the clock, and the multiply-adds of a batch."""

    seconds_per_batch: float
    work_per_batch: float


class Estimator:
    """Remembers what was for ten seconds, so that a plan costs no query."""

    def __init__(self, database: AsyncDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._pools: set[str] = set()
        self._past: dict[str, list[Training]] = {}
        self._until = 0.0

    async def seconds(self, device: str, work: float, batches: int) -> float | None:
        """Of a training of `work` multiply-adds in so many batches. None where its pool has no past."""
        if self._clock() >= self._until:
            await self._look()
        pool = pool_of(device, self._pools)
        per_batch = seconds_per_batch(self._past.get(pool, []), work / max(1, batches))
        return None if per_batch is None else per_batch * batches

    async def _look(self) -> None:
        async with self._database.read() as session:
            self._pools = {worker.pool for worker in await session.scalars(workers.list_workers())}
            for pool in ("cpu", "gpu"):
                rows = (await session.execute(estimates.past_trainings(pool, NEWEST))).all()
                self._past[pool] = [one for row in rows if (one := _training(*row)) is not None]
        self._until = self._clock() + KEPT_S


def _training(
    started_at: datetime,
    finished_at: datetime,
    work: float,
    progress: dict[str, Any],
    accumulate: int | None,
) -> Training | None:
    """One that stopped early took the time of the steps it made."""
    made, planned = progress.get("step", 0), progress.get("steps", 0)
    if not made or not planned:
        return None
    batches = accumulate or 1  # jobs before there was the word have none
    return Training((finished_at - started_at).total_seconds() / made / batches, work / planned / batches)


def work_of(checked: Checked, num_rows: int) -> float:
    """Multiply-adds of the whole training on each of its devices, forward and backward. A step takes
    `accumulate` batches, whose rows the devices share."""
    trainer = checked.spec["trainer"]
    rows: int = min(trainer["batch_size"] * trainer["accumulate"], num_rows)
    return float(PASSES * checked.work * checked.plan.steps * rows / trainer["devices"])


def batches_of(checked: Checked) -> int:
    """Of the whole training; a last step of an epoch counts as full."""
    return int(checked.plan.steps * checked.spec["trainer"]["accumulate"])


def seconds_per_batch(past: Sequence[Training], work: float) -> float | None:
    """`work` is the multiply-adds of a batch. Where the past lies too near together to tell how the time
    grows, more work is taken to cost in proportion, and less as much."""
    near = sorted(past, key=lambda one: abs(_log(one.work_per_batch) - _log(work)))[:NEAREST]
    if not near:
        return None
    works = [one.work_per_batch for one in near]
    if max(works) < MIN_SPREAD * min(works):
        typical = statistics.median(one.seconds_per_batch for one in near)
        return typical * max(1.0, work / max(1.0, statistics.median(works)))
    slope = max(0.0, statistics.median(_slopes(near)))
    rest = statistics.median(one.seconds_per_batch - slope * one.work_per_batch for one in near)
    return max(0.0, rest) + slope * work


def _slopes(past: Sequence[Training]) -> list[float]:
    return [
        (one.seconds_per_batch - other.seconds_per_batch) / (one.work_per_batch - other.work_per_batch)
        for one, other in itertools.combinations(past, 2)
        if one.work_per_batch != other.work_per_batch
    ]


def _log(work: float) -> float:
    return math.log(max(1.0, work))
