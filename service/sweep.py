"""Dispatcher and sweep, one asyncio task: sends wake-ups, makes room for higher priorities, finds lost
leases, collects what nobody needs.

It runs in the service and not on the broker's clock, because it must live when the broker is dead.
Every write is conditional, so that two services sweeping at once do no harm.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

import structlog

from core.db.engines import AsyncDatabase
from core.db.models import Worker, utc_now
from core.db.statements import batch_predictions, keys, leases, workers
from core.fault_points import reach
from core.settings import Settings
from service import losses, preemption
from service.spool import remove_abandoned
from service.stillness import Stillness

REPLIES_KEPT = timedelta(hours=24)
SPOOL_KEPT_S = 24 * 3600.0
HOUSEKEEPING_S = 600.0

#: The first retry of a wake-up that could not be sent; doubles up to the sweep's own period.
RETRY_S = 1.0

DATA_POOL = "data"

log = structlog.stdlib.get_logger()


class Sweeper:
    """`send(pool)` sends one wake-up and may block for seconds; it runs in a thread of its own. `collect`
    removes the bytes that nobody needs any more, now and then."""

    def __init__(
        self,
        database: AsyncDatabase,
        settings: Settings,
        send: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        collect: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._collect = collect
        self._database = database
        self._settings = settings
        self._send = send
        self._clock = clock
        self._now = now
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="wake")
        self._poked = asyncio.Event()
        self._unwoken: set[str] = set()
        self._retry_s = RETRY_S
        self._leases: Stillness[tuple[str, str], tuple[int, int]] = Stillness()
        self._next_housekeeping = 0.0
        self.broker: Literal["unknown", "ok", "unreachable"] = "unknown"

    def poke(self, pool: str) -> None:
        """There is new work for a pool: wake somebody soon, off this request."""
        self._unwoken.add(pool)
        self._retry_s = RETRY_S
        self._poked.set()

    async def run(self) -> None:
        next_sweep = retry_at = self._clock()
        while True:
            if self._clock() >= next_sweep:
                await _surviving(self.sweep)
                next_sweep = self._clock() + self._settings.sweep_s
            self._poked.clear()
            for pool in sorted(self._unwoken):
                await _surviving(partial(preemption.preempt, self._database, pool, self._now()))
            if self._unwoken and not await self._dispatch():
                retry_at = self._clock() + self._retry_s
                self._retry_s = min(2 * self._retry_s, self._settings.sweep_s)
            due = min(next_sweep, retry_at) if self._unwoken else next_sweep
            try:
                async with asyncio.timeout(max(0.0, due - self._clock())):
                    await self._poked.wait()
            except TimeoutError:
                pass

    def close(self) -> None:
        self._sender.shutdown(wait=False, cancel_futures=True)

    async def sweep(self) -> None:
        """One look at everything. What fails is tried again at the next."""
        async with self._database.read() as session:
            jobs = (await session.execute(leases.running_leases())).all()
            datasets = (await session.execute(leases.ingesting_leases())).all()
            batches = (await session.execute(batch_predictions.running_leases())).all()
            known = list(await session.scalars(workers.list_workers()))
            unwanted = list(await session.scalars(leases.unwanted_jobs()))
        reach("sweep.looked")
        seen: dict[tuple[str, str], tuple[int, int]] = {}
        seen |= {("job", row.id): (row.fence, row.beat) for row in jobs}
        seen |= {("dataset", row.id): (row.fence, row.beat) for row in datasets}
        seen |= {("batch", row.id): (row.fence, row.beat) for row in batches}
        seen |= {("worker", row.id): (0, row.beat) for row in known}
        for (kind, row_id), (fence, beat) in self._leases.still(seen, self._clock(), self._settings.lease_s):
            await self._lost(kind, row_id, fence, beat)
        for job_id in unwanted:
            await losses.end_unwanted(self._database, job_id, self._now())
        await self._wake_idle(known)
        if self._clock() >= self._next_housekeeping:
            self._next_housekeeping = self._clock() + HOUSEKEEPING_S
            await self._housekeep()

    async def _lost(self, kind: str, row_id: str, fence: int, beat: int) -> None:
        log.warning("lease_lost", kind=kind, id=row_id, fence=fence)
        match kind:
            case "job":
                await losses.lose_job(self._database, self._settings, row_id, fence, beat, self._now())
            case "dataset":
                await losses.lose_dataset(self._database, self._settings, row_id, fence, beat, self._now())
            case "batch":
                await losses.lose_batch(self._database, self._settings, row_id, fence, beat, self._now())
            case _:
                async with self._database.write() as session:
                    await session.execute(workers.remove_silent_worker(row_id, beat))
                    await session.commit()

    async def _wake_idle(self, known: list[Worker]) -> None:
        """At most one wake-up per idle slot while there is work; one where no worker is known at all."""
        async with self._database.read() as session:
            waiting = Counter(dict((await session.execute(leases.claimable_jobs(self._now()))).all()))
            batches = await session.execute(batch_predictions.claimable_batches(self._now()))
            waiting.update(dict(batches.all()))
            waiting[DATA_POOL] = (await session.scalars(leases.waiting_datasets())).one()
        for pool in waiting:
            await preemption.preempt(self._database, pool, self._now())
        for pool, count in waiting.items():
            serving = [worker for worker in known if worker.pool == pool]
            idle = sum(max(0, worker.slots - worker.busy) for worker in serving) if serving else 1
            for _ in range(min(count, idle)):
                if not await self._wake(pool):
                    return

    async def _dispatch(self) -> bool:
        """True once every pool that waits for a wake-up has got one."""
        for pool in sorted(self._unwoken):
            self._unwoken.discard(pool)  # before sending: who pokes meanwhile gets a wake-up of its own
            if not await self._wake(pool):
                self._unwoken.add(pool)
                return False
        return True

    async def _wake(self, pool: str) -> bool:
        reach("sweep.waking")
        try:
            await asyncio.get_running_loop().run_in_executor(self._sender, self._send, pool)
        except (
            Exception
        ) as error:  # whatever the broker's client raises: the job is queued, the sweep repeats
            log.warning("wake_not_sent", pool=pool, reason=str(error))
            self.broker = "unreachable"
            return False
        self.broker = "ok"
        return True

    async def _housekeep(self) -> None:
        async with self._database.write() as session:
            await session.execute(keys.forget_replies(self._now() - REPLIES_KEPT))
            await session.commit()
        await asyncio.to_thread(remove_abandoned, self._settings.scratch(), SPOOL_KEPT_S)
        if self._collect is not None:
            await self._collect()


async def _surviving(step: Callable[[], Awaitable[None]]) -> None:
    """The loop outlives a database that is away: it says so and tries again at the next sweep."""
    try:
        await step()
    except Exception:
        log.exception("sweep_failed", hint="the next one tries again")
