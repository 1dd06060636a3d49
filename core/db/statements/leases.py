"""Who works on what: claims, beats and lost leases of jobs and of datasets being ingested.

A lease is two integers. `fence` rises with every claim and stands in every write of the attempt;
`beat` rises while the worker lives. No clock is compared between machines: who looks for lost
leases remembers what it saw on its own monotonic clock.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, Update, func, or_, select, update

from core.db.models import Dataset, Event, Job
from core.db.statements.jobs import leave, move
from modelyard.specs import JobErrorCode, JobState, Wanted


def claimable(pool: str, now: datetime) -> tuple[Any, ...]:
    """The conditions under which a worker of the pool may take a job."""
    return (
        Job.state == JobState.QUEUED,
        Job.wanted == Wanted.RUN,
        Job.pool == pool,
        or_(Job.not_before.is_(None), Job.not_before <= now),
    )


def claim_job(pool: str, now: datetime, *, worker_id: str, slots: int, free: int) -> Update:
    """The best job that a worker of so many slots could run: priority, then age. Returns the claimed row, or
    nothing.

    A job for more devices than the worker has slots is passed over: it is for another worker, and blocks
    nobody here. One for more than are `free` now is waited for: what stands behind it is not taken either,
    so that small jobs can't keep a large one waiting for ever. The slots come free one by one until it fits,
    here or on another worker.

    The outer condition repeats the inner one, so that of two who chose the same row one gets none.
    """
    best = (
        select(Job.id)
        .where(*claimable(pool, now), Job.devices <= slots)
        .order_by(Job.priority.desc(), Job.queued_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(Job)
        .where(Job.id == best, Job.state == JobState.QUEUED, Job.devices <= free)
        .values(fence=Job.fence + 1, attempt=Job.attempt + 1, not_before=None, worker_id=worker_id)
        .returning(Job)
        .execution_options(synchronize_session=False)
    )


def beat_job(job_id: str, fence: int, **values: Any) -> Update:
    """Says that the attempt lives, writes what it has to say, and reads `wanted` and `preempted_by`. No row:
    another attempt owns the job, and nothing more may be written."""
    changed = {"revision": Job.revision + 1, **values} if values else {}
    return (
        update(Job)
        .where(Job.id == job_id, Job.fence == fence, Job.state == JobState.RUNNING)
        .values(beat=Job.beat + 1, **changed)
        .returning(Job.wanted, Job.preempted_by)
        .execution_options(synchronize_session=False)
    )


def running_leases() -> Select[str, int, int]:
    return select(Job.id, Job.fence, Job.beat).where(Job.state == JobState.RUNNING)


def lock_lost_job(job_id: str, fence: int, beat: int) -> Select[Job]:
    """The row, if nothing moved since the lease was seen."""
    return (
        select(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING, Job.fence == fence, Job.beat == beat)
        .with_for_update()
    )


def claimable_jobs(now: datetime) -> Select[str, int]:
    """Pool and number of jobs that a worker could claim now."""
    return (
        select(Job.pool, func.count())
        .where(
            Job.state == JobState.QUEUED,
            Job.wanted == Wanted.RUN,
            or_(Job.not_before.is_(None), Job.not_before <= now),
        )
        .group_by(Job.pool)
    )


def unwanted_jobs() -> Select[str]:
    """Queued, but cancelled or paused in the moment they came back to the queue: no worker claims them."""
    others = [wanted for wanted in Wanted if wanted is not Wanted.RUN]  # by name: an index knows no "not"
    return select(Job.id).where(Job.state == JobState.QUEUED, Job.wanted.in_(others))


def claim_dataset() -> Update:
    oldest = (
        select(Dataset.id)
        .where(Dataset.state == "queued")
        .order_by(Dataset.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(Dataset)
        .where(Dataset.id == oldest, Dataset.state == "queued")
        .values(state="ingesting", fence=Dataset.fence + 1)
        .returning(Dataset)
        .execution_options(synchronize_session=False)
    )


def beat_dataset(dataset_id: str, fence: int) -> Update:
    return (
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.fence == fence, Dataset.state == "ingesting")
        .values(beat=Dataset.beat + 1)
        .returning(Dataset.id)
        .execution_options(synchronize_session=False)
    )


def ingesting_leases() -> Select[str, int, int]:
    return select(Dataset.id, Dataset.fence, Dataset.beat).where(Dataset.state == "ingesting")


def lock_lost_dataset(dataset_id: str, fence: int, beat: int) -> Select[Dataset]:
    return (
        select(Dataset)
        .where(
            Dataset.id == dataset_id,
            Dataset.state == "ingesting",
            Dataset.fence == fence,
            Dataset.beat == beat,
        )
        .with_for_update()
    )


def waiting_datasets() -> Select[int]:
    return select(func.count()).select_from(Dataset).where(Dataset.state == "queued")


def lose_job(job: Job, reason: str, now: datetime, *, max_losses: int, backoff_s: float) -> Event:
    """A locked job lost its worker or its child: back to the queue, or the end of it.

    The first loss is tried again at once, later ones after `backoff_s`, doubling. Losses without a
    checkpoint between them count; at `max_losses` the job fails, so that one that kills its worker
    does not go round for ever.
    """
    job.losses += 1
    if job.wanted == Wanted.CANCEL:
        return leave(job, f"cancelled; {reason}", now)
    if job.losses >= max_losses:
        job.error = {
            "code": JobErrorCode.WORKER_LOST,
            "message": f"{job.losses} attempts in a row ended without a checkpoint; the last: {reason}",
            "hint": "the net or batch may need more memory than the worker has; its log has the last words",
            "pointer": None,
        }
        return move(job, JobState.FAILED, reason, now)
    if job.losses > 1:
        job.not_before = now + timedelta(seconds=backoff_s * 2 ** (job.losses - 2))
    return leave(job, reason, now)
