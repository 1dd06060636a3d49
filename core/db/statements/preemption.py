"""Who waits for a slot that a job of a lower priority holds, and the mark that asks it to make room."""

from datetime import datetime

from sqlalchemy import CompoundSelect, Select, Update, literal, select, update

from core.db.models import BatchPrediction, Job
from core.db.statements.batch_predictions import PRIORITY
from core.db.statements.leases import claimable
from modelyard.specs import BatchState, JobState, Wanted

#: Of those who wait, so many of the best are looked at: whoever stands behind them has to wait anyway.
MAX_WAITING = 1000


def running_jobs(pool: str) -> Select[str, int, int, int, str | None, datetime, str | None]:
    """id, fence, priority, devices, worker_id, queued_at, preempted_by."""
    return select(
        Job.id, Job.fence, Job.priority, Job.devices, Job.worker_id, Job.queued_at, Job.preempted_by
    ).where(Job.state == JobState.RUNNING, Job.pool == pool)


def running_batches(pool: str) -> Select[str, int, int, int, str | None, datetime, str | None]:
    """The same of batch predictions, which hold one slot each."""
    return select(
        BatchPrediction.id,
        BatchPrediction.fence,
        literal(PRIORITY),
        literal(1),
        BatchPrediction.worker_id,
        BatchPrediction.queued_at,
        BatchPrediction.preempted_by,
    ).where(BatchPrediction.state == BatchState.RUNNING, BatchPrediction.pool == pool)


def waiting_jobs(pool: str, now: datetime, *, above: int) -> Select[str, int, int]:
    """id, priority, devices of claimable jobs above a priority, in the order of claims."""
    return (
        select(Job.id, Job.priority, Job.devices)
        .where(*claimable(pool, now), Job.priority > above)
        .order_by(Job.priority.desc(), Job.queued_at)
        .limit(MAX_WAITING)
    )


def lock_waiting(job_id: str) -> Select[Job]:
    """The row of a job that still waits, held until the transaction ends."""
    return (
        select(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.wanted == Wanted.RUN)
        .with_for_update()
    )


def marked_for(job_id: str) -> CompoundSelect[str]:
    """What runs and makes room for this job already."""
    batches = select(BatchPrediction.id).where(
        BatchPrediction.preempted_by == job_id, BatchPrediction.state == BatchState.RUNNING
    )
    return batches.union(select(Job.id).where(Job.preempted_by == job_id, Job.state == JobState.RUNNING))


def mark_preempted(job_id: str, fence: int, by: str) -> Update:
    """Asks an attempt to make room; its supervisor reads it with its next beat."""
    return (
        update(Job)
        .where(
            Job.id == job_id,
            Job.fence == fence,
            Job.state == JobState.RUNNING,
            Job.preempted_by.is_(None),
        )
        .values(preempted_by=by)
    )


def mark_preempted_batch(batch_id: str, fence: int, by: str) -> Update:
    return (
        update(BatchPrediction)
        .where(
            BatchPrediction.id == batch_id,
            BatchPrediction.fence == fence,
            BatchPrediction.state == BatchState.RUNNING,
            BatchPrediction.preempted_by.is_(None),
        )
        .values(preempted_by=by)
    )
