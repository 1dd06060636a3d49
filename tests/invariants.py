"""What holds after any fault: `require` reads the rows and the files, and says what does not."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from sqlalchemy import select, text

from core.db.engines import open_async_database
from core.db.models import Checkpoint, Event, Job, Metric, Version
from core.db.statements.jobs import ARROWS, TERMINAL
from core.storage.durable import Damaged, verify
from modelyard.specs import JobState
from service import orphans
from tests import house as homes
from workers.house import House


def require(house: House, job_ids: Iterable[str], *, steps_per_epoch: int = 14) -> None:
    """All of it, once all that had to end has ended. Collects, as the service does, before it looks for files
    without a row."""
    broken = [*broken_jobs(house, job_ids, steps_per_epoch), *broken_files(house)]
    collect(house)
    broken += [f"no row keeps {key}" for key in sorted(without_a_row(house))]
    broken += broken_database(house)
    assert not broken, "\n".join(broken)


def broken_jobs(house: House, job_ids: Iterable[str], steps_per_epoch: int) -> Iterator[str]:
    for job_id in job_ids:
        with house.database.read() as session:
            job = session.get_one(Job, job_id)
            events = session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)).all()
            rows = session.scalars(select(Metric).where(Metric.job_id == job_id).order_by(Metric.step)).all()
            versions = session.scalars(select(Version).where(Version.job_id == job_id)).all()
        yield from _wrong_way(job)
        yield from _wrong_events(job, list(events))
        yield from _wrong_fences(house, job)
        steps = [row.step for row in rows if row.name == "val_loss"]
        done = job.progress.get("epoch", 0) if job.state == JobState.SUCCEEDED else len(steps)
        if steps != [steps_per_epoch * (epoch + 1) for epoch in range(done)]:
            yield f"{job_id}: val_loss at the steps {steps}, expected every {steps_per_epoch} up to {done}"
        ready = [version for version in versions if version.state == "ready"]
        if len(ready) != (job.state == JobState.SUCCEEDED):
            yield f"{job_id} is {job.state} and has {len(ready)} versions"


def _wrong_way(job: Job) -> Iterator[str]:
    """Accepted is terminal, once, by arrows that there are."""
    states = [JobState(one["state"]) for one in job.transitions]
    if states[0] != JobState.QUEUED:  # put there without a submission
        states.insert(0, JobState.QUEUED)
    if [state for state in states if state in TERMINAL] != [states[-1]] or states[-1] != job.state:
        yield f"{job.id} is {job.state} and went {' '.join(states)}"
    for before, after in pairwise(states):
        if after not in ARROWS[before]:
            yield f"{job.id} went from {before} to {after}"


def _wrong_events(job: Job, events: list[Event]) -> Iterator[str]:
    if [event.seq for event in events] != list(range(1, len(events) + 1)) or job.event_seq != len(events):
        yield f"{job.id}: events {[event.seq for event in events]}, and the job counts {job.event_seq}"
    told = [event.data["state"] for event in events if event.type == "state"]
    if told != [one["state"] for one in job.transitions]:
        yield f"{job.id}: its events tell of the states {told}, its row of {job.transitions}"
    said = [(event.type, event.at, str(event.data)) for event in events]
    if len(set(said)) != len(said):
        yield f"{job.id}: an event is there twice"


def _wrong_fences(house: House, job: Job) -> Iterator[str]:
    """Every claim raises the fence by one; a later checkpoint has no smaller one."""
    claims = sum(one["state"] == JobState.RUNNING for one in job.transitions)
    if not job.fence == job.attempt == claims:
        yield f"{job.id}: fence {job.fence}, attempt {job.attempt}, claimed {claims} times"
    with house.database.read() as session:
        query = select(Checkpoint.fence).where(Checkpoint.job_id == job.id).order_by(Checkpoint.created_at)
        fences = list(session.scalars(query))
    if fences != sorted(fences):
        yield f"{job.id}: checkpoints with the fences {fences}"


def broken_files(house: House) -> Iterator[str]:
    """No row without its file and hash."""
    with house.database.read() as session:
        kept = session.scalars(select(Checkpoint).where(Checkpoint.state == "ready")).all()
        versions = session.scalars(select(Version)).all()
    files = [(row.weights_key, row.weights_bytes, row.weights_sha256) for row in kept]
    files += [(row.state_key, row.state_bytes, row.state_sha256) for row in kept]
    for key, size, sha256 in files:
        try:
            verify(house.storage.fetch(key), size, sha256)
        except (FileNotFoundError, Damaged) as error:
            yield f"{key}: {type(error).__name__}: {error}"
    ready = {row.id for row in kept}
    for version in versions:
        try:
            path = house.storage.fetch(version.manifest_key)
            verify(path, path.stat().st_size, version.manifest_sha256)
        except (FileNotFoundError, Damaged) as error:
            yield f"{version.manifest_key}: {type(error).__name__}: {error}"
        if version.checkpoint_id not in ready:
            yield f"version {version.id} has no checkpoint"


def collect(house: House) -> None:
    """As the service does now and then: two looks."""

    async def twice() -> None:
        database = open_async_database(house.settings.resolved_database_url())
        collecting = orphans.Orphans(database, house.storage)
        await collecting.collect()
        await collecting.collect()
        await database.close()

    asyncio.run(twice())


def without_a_row(house: House) -> frozenset[str]:
    async def found() -> frozenset[str]:
        database = open_async_database(house.settings.resolved_database_url())
        try:
            return await orphans.find(database, house.storage)
        finally:
            await database.close()

    return asyncio.run(found())


def broken_database(house: House) -> Iterator[str]:
    if house.database.engine.dialect.name == "sqlite":
        with house.database.read() as session:
            said = list(session.scalars(text("PRAGMA integrity_check")))
            dangling = session.execute(text("PRAGMA foreign_key_check")).all()
        if said != ["ok"] or dangling:
            yield f"the database says {said}, and rows refer to nothing: {dangling}"


@contextmanager
def fences_only_rise(house: House) -> Iterator[None]:
    """Looks at all jobs all the time, and at the end says which went back."""
    seen: dict[str, tuple[int, int, int]] = {}
    broken: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            try:
                jobs = homes.read_jobs(house)
            except Exception:  # the database is away: that is the fault
                continue
            for job in jobs:
                now, before = (job.fence, job.event_seq, job.revision), seen.get(job.id, (0, 0, 0))
                if any(later < earlier for earlier, later in zip(before, now, strict=True)):
                    broken.append(f"{job.id}: fence, events and revision went from {before} to {now}")
                seen[job.id] = now

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not broken, "\n".join(broken)
