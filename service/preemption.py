"""Room for a job of a higher priority: which running jobs and batch predictions give their slots back, and
the mark that asks them.

Who is marked saves what it has, goes back to the queue and resumes once there is room again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from core.db.engines import AsyncDatabase
from core.db.statements import preemption, workers

log = structlog.stdlib.get_logger()


@dataclass(frozen=True)
class Waiting:
    id: str
    priority: int
    devices: int


@dataclass(frozen=True)
class Running:
    """`preempted_by` is the job that it makes room for already."""

    id: str
    fence: int
    priority: int
    devices: int
    worker_id: str | None
    queued_at: datetime
    preempted_by: str | None
    is_batch: bool = False


async def preempt(database: AsyncDatabase, pool: str, now: datetime) -> None:
    """Marks whoever has to make room in a pool. Two services that do it at once do no harm."""
    async with database.read() as session:
        running = [Running(*row) for row in await session.execute(preemption.running_jobs(pool))]
        batches = await session.execute(preemption.running_batches(pool))
        running += [Running(*row, is_batch=True) for row in batches]
        lowest = min((job.priority for job in running), default=None)
        if lowest is None:
            return
        query = preemption.waiting_jobs(pool, now, above=lowest)
        waiting = [Waiting(*row) for row in await session.execute(query)]
        if not waiting:
            return
        known = await session.scalars(workers.list_workers())
        slots = {worker.id: worker.slots for worker in known if worker.pool == pool}
    for job_id, victims in choose(waiting, running, slots).items():
        await _mark(database, job_id, victims)


def choose(
    waiting: Sequence[Waiting], running: Sequence[Running], slots: Mapping[str, int]
) -> dict[str, list[Running]]:
    """By the id of a waiting job: those of strictly lower priority that give it their slots, the lowest and
    of these the youngest first. `waiting` stands in the order of claims; `slots` are those of each worker.

    Nobody is stopped for a job that finds free slots, or for which others stop already. Where even stopping
    makes no room, the workers that could run the job are left to it, as its claim does: room there would be
    no use to those behind it.
    """
    free = {worker: count - _held(running, worker) for worker, count in slots.items()}
    left = [job for job in running if job.preempted_by is None]
    chosen: dict[str, list[Running]] = {}
    for job in waiting:
        stopping = [one for one in running if one.preempted_by == job.id]
        able = [worker for worker in free if slots[worker] >= job.devices]
        place = next((worker for worker in able if free[worker] >= job.devices), None)
        if stopping:
            place = stopping[0].worker_id
        elif place is None:
            options = {
                worker: found for worker in able if (found := _victims(job, worker, left, free[worker]))
            }
            if not options:
                for worker in able:
                    del free[worker]
                continue
            place = min(options, key=lambda worker: _cost(options[worker]))
            stopping = chosen[job.id] = options[place]
            left = [one for one in left if one not in stopping]
        if place in free:
            free[place] += sum(one.devices for one in stopping) - job.devices
    return chosen


def _held(running: Sequence[Running], worker: str) -> int:
    return sum(job.devices for job in running if job.worker_id == worker)


def _victims(job: Waiting, worker: str, left: Sequence[Running], free: int) -> list[Running]:
    """Of this worker, as few as make room; none where they can't."""
    lower = [one for one in left if one.worker_id == worker and one.priority < job.priority]
    found: list[Running] = []
    for one in sorted(lower, key=_rank):
        if free + sum(victim.devices for victim in found) < job.devices:
            found.append(one)
    room = free + sum(victim.devices for victim in found) - job.devices
    if room < 0:
        return []
    for one in reversed(found[:-1]):  # a larger one that came last may have made a smaller one needless
        if one.devices <= room:
            found.remove(one)
            room -= one.devices
    return found


def _rank(job: Running) -> tuple[int, float]:
    """The reverse of the order of claims: the lowest priority, then the youngest."""
    return job.priority, -job.queued_at.timestamp()


def _cost(victims: list[Running]) -> tuple[tuple[int, float], int]:
    return max(_rank(job) for job in victims), len(victims)


async def _mark(database: AsyncDatabase, job_id: str, victims: list[Running]) -> None:
    async with database.write() as session:
        waits = (await session.scalars(preemption.lock_waiting(job_id))).one_or_none()
        # After the lock: another service may have chosen for the same job.
        if waits is None or (await session.scalars(preemption.marked_for(job_id))).first() is not None:
            return
        for job in victims:
            mark = preemption.mark_preempted_batch if job.is_batch else preemption.mark_preempted
            await session.execute(mark(job.id, job.fence, job_id))
        await session.commit()
    log.info("preempting", job=job_id, stops=[job.id for job in victims])
