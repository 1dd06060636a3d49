"""What the database says of the whole service: jobs by state, workers, what waits for them.

However often it is asked, the database is asked once in `KEPT_S` seconds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from core.db.engines import AsyncDatabase
from core.db.models import Worker, utc_now
from core.db.statements import batch_predictions, counts, leases, workers
from service.sweep import DATA_POOL

KEPT_S = 5.0
#: A database that takes longer is one that does not answer.
TIMEOUT_S = 2.0

log = structlog.stdlib.get_logger()


@dataclass(frozen=True)
class Stored:
    """States as they are in the rows, pools by name. `waiting` is what a worker could claim now."""

    jobs: Counter[str]
    batches: Counter[str]
    datasets: Counter[str]
    waiting: Counter[str]
    workers: list[Worker]


class Counts:
    def __init__(self, database: AsyncDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._one_asks = asyncio.Lock()
        self._kept: Stored | None = None
        self._until = 0.0

    async def read(self) -> Stored | None:
        """At most `KEPT_S` old. None where the database does not answer."""
        async with self._one_asks:
            if self._clock() >= self._until:
                self._kept = await self._asked()
                self._until = self._clock() + KEPT_S
            return self._kept

    async def _asked(self) -> Stored | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._read()
        except Exception as error:  # whatever the driver says: a page without these numbers says it too
            log.warning("counts_not_read", reason=str(error) or type(error).__name__)
            return None

    async def _read(self) -> Stored:
        now = utc_now()
        async with self._database.read() as session:
            waiting = Counter(dict((await session.execute(leases.claimable_jobs(now))).all()))
            batches = await session.execute(batch_predictions.claimable_batches(now))
            waiting.update(dict(batches.all()))
            waiting[DATA_POOL] += (await session.scalars(leases.waiting_datasets())).one()
            return Stored(
                jobs=Counter(dict((await session.execute(counts.jobs_by_state())).all())),
                batches=Counter(dict((await session.execute(counts.batches_by_state())).all())),
                datasets=Counter(dict((await session.execute(counts.datasets_by_state())).all())),
                waiting=waiting,
                workers=list(await session.scalars(workers.list_workers())),
            )
