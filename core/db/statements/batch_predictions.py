"""Batch predictions: their rows and parts, their lease, and the one place where one changes its state."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Delete, Select, Update, and_, delete, func, or_, select, update

from core.db.models import BatchPrediction, Job, PredictionPart
from core.db.statements.leases import claimable
from core.db.statements.paging import page
from core.errors import Conflict
from modelyard.specs import BatchState, JobErrorCode, Wanted

#: Every arrow there is; a terminal state has none.
ARROWS: dict[BatchState, frozenset[BatchState]] = {
    # queued: to a worker that claims it; to cancelled by its owner
    BatchState.QUEUED: frozenset({BatchState.RUNNING, BatchState.CANCELLED}),
    # running: to queued when its worker was lost or drained, or a job of a higher priority took its place
    BatchState.RUNNING: frozenset(
        {BatchState.SUCCEEDED, BatchState.FAILED, BatchState.CANCELLED, BatchState.QUEUED}
    ),
    BatchState.SUCCEEDED: frozenset(),
    BatchState.FAILED: frozenset(),
    BatchState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, arrows in ARROWS.items() if not arrows)

#: In the order of claims it stands among the jobs of this priority.
PRIORITY = 0


def move(batch: BatchPrediction, state: BatchState, reason: str, at: datetime) -> None:
    """Moves a row that the caller has locked. Raises Conflict where the state has no such arrow."""
    if state not in ARROWS[BatchState(batch.state)]:
        raise Conflict(
            f"batch prediction {batch.id} is {batch.state}: it cannot become {state}",
            code="no_such_transition",
        )
    batch.state = state
    batch.preempted_by = None
    batch.revision += 1
    batch.transitions = [*batch.transitions, {"state": state, "at": at.isoformat(), "reason": reason}]
    if state is BatchState.QUEUED:
        batch.queued_at = at
    if state in TERMINAL:
        batch.finished_at = at


def leave(batch: BatchPrediction, reason: str, at: datetime) -> None:
    """The attempt of a locked running row has ended before its work: cancelled where its owner wants that,
    else back to the queue."""
    if batch.wanted == Wanted.CANCEL:
        move(batch, BatchState.CANCELLED, reason, at)
    else:
        move(batch, BatchState.QUEUED, reason, at)


def lose(batch: BatchPrediction, reason: str, now: datetime, *, max_losses: int, backoff_s: float) -> None:
    """As `leases.lose_job`; a part between two losses makes the count begin anew."""
    batch.losses += 1
    if batch.wanted != Wanted.CANCEL and batch.losses >= max_losses:
        batch.error = {
            "code": JobErrorCode.WORKER_LOST,
            "message": f"{batch.losses} attempts in a row ended without a part; the last: {reason}",
            "hint": "a row or the net may need more memory than the worker has; its log has the last words",
            "pointer": None,
        }
        move(batch, BatchState.FAILED, reason, now)
        return
    if batch.losses > 1:
        batch.not_before = now + timedelta(seconds=backoff_s * 2 ** (batch.losses - 2))
    leave(batch, reason, now)


# What readers see


def get(owner: str, batch_id: str) -> Select[BatchPrediction]:
    return select(BatchPrediction).where(BatchPrediction.id == batch_id, BatchPrediction.owner == owner)


def list_all(owner: str, *, state: str | None, after: str | None, limit: int) -> Select[BatchPrediction]:
    query = select(BatchPrediction).where(BatchPrediction.owner == owner)
    if state is not None:
        query = query.where(BatchPrediction.state == state)
    return page(query, BatchPrediction.id, after, limit)


def lock(batch_id: str, *, owner: str | None = None, fence: int | None = None) -> Select[BatchPrediction]:
    """The row, held until the transaction ends. With `fence`, only while that attempt owns it."""
    query = select(BatchPrediction).where(BatchPrediction.id == batch_id)
    if owner is not None:
        query = query.where(BatchPrediction.owner == owner)
    if fence is not None:
        query = query.where(BatchPrediction.fence == fence, BatchPrediction.state == BatchState.RUNNING)
    return query.with_for_update()


def revisions(batch_ids: list[str]) -> Select[str, int]:
    return select(BatchPrediction.id, BatchPrediction.revision).where(BatchPrediction.id.in_(batch_ids))


def reading_dataset(dataset_id: str) -> Select[str]:
    """Those that have not ended and read this version."""
    return (
        select(BatchPrediction.id)
        .where(BatchPrediction.dataset_id == dataset_id, BatchPrediction.state.not_in(TERMINAL))
        .limit(5)
    )


def asking_version(version_id: str) -> Select[str]:
    """Those that have not ended and are answered by this version."""
    return (
        select(BatchPrediction.id)
        .where(BatchPrediction.version_id == version_id, BatchPrediction.state.not_in(TERMINAL))
        .limit(5)
    )


def reading_upload(upload_id: str) -> Select[str]:
    """Those that have not ended and read this upload."""
    return (
        select(BatchPrediction.id)
        .where(BatchPrediction.upload_id == upload_id, BatchPrediction.state.not_in(TERMINAL))
        .limit(1)
    )


# The lease


def _waits(pool: str, now: datetime) -> tuple[Any, ...]:
    return (
        BatchPrediction.state == BatchState.QUEUED,
        BatchPrediction.pool == pool,
        or_(BatchPrediction.not_before.is_(None), BatchPrediction.not_before <= now),
    )


def claim(pool: str, now: datetime, *, worker_id: str, slots: int) -> Update:
    """The oldest, where no job of the pool that a worker of so many slots could run stands before it: one of
    a higher priority, or an older one of the same. Returns the claimed row, or nothing."""
    oldest = (
        select(BatchPrediction.id)
        .where(*_waits(pool, now))
        .order_by(BatchPrediction.queued_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    is_older = and_(Job.priority == PRIORITY, Job.queued_at < BatchPrediction.queued_at)
    stands_before = (
        select(Job.id)
        .where(*claimable(pool, now), Job.devices <= slots, or_(Job.priority > PRIORITY, is_older))
        .correlate(BatchPrediction)
        .exists()
    )
    return (
        update(BatchPrediction)
        .where(BatchPrediction.id == oldest, BatchPrediction.state == BatchState.QUEUED, ~stands_before)
        .values(
            fence=BatchPrediction.fence + 1,
            attempt=BatchPrediction.attempt + 1,
            not_before=None,
            worker_id=worker_id,
        )
        .returning(BatchPrediction)
        .execution_options(synchronize_session=False)
    )


def beat(batch_id: str, fence: int, **values: Any) -> Update:
    """As `leases.beat_job`: reads `wanted` and `preempted_by`. No row: another attempt owns it."""
    changed = {"revision": BatchPrediction.revision + 1, **values} if values else {}
    return (
        update(BatchPrediction)
        .where(
            BatchPrediction.id == batch_id,
            BatchPrediction.fence == fence,
            BatchPrediction.state == BatchState.RUNNING,
        )
        .values(beat=BatchPrediction.beat + 1, **changed)
        .returning(BatchPrediction.wanted, BatchPrediction.preempted_by)
        .execution_options(synchronize_session=False)
    )


def running_leases() -> Select[str, int, int]:
    return select(BatchPrediction.id, BatchPrediction.fence, BatchPrediction.beat).where(
        BatchPrediction.state == BatchState.RUNNING
    )


def lock_lost(batch_id: str, fence: int, beat: int) -> Select[BatchPrediction]:
    """The row, if nothing moved since the lease was seen."""
    return lock(batch_id, fence=fence).where(BatchPrediction.beat == beat)


def claimable_batches(now: datetime) -> Select[str, int]:
    """Pool and number of those that a worker could claim now."""
    return (
        select(BatchPrediction.pool, func.count())
        .where(
            BatchPrediction.state == BatchState.QUEUED,
            or_(BatchPrediction.not_before.is_(None), BatchPrediction.not_before <= now),
        )
        .group_by(BatchPrediction.pool)
    )


# Parts


def parts_of(batch_id: str) -> Select[PredictionPart]:
    return select(PredictionPart).where(PredictionPart.batch_id == batch_id).order_by(PredictionPart.start)


def forget_parts(batch_id: str, *, since: int = 0) -> Delete:
    return delete(PredictionPart).where(PredictionPart.batch_id == batch_id, PredictionPart.start >= since)


def uncleared(limit: int) -> Select[BatchPrediction]:
    """Those that have ended and whose parts are still there."""
    return (
        select(BatchPrediction)
        .where(BatchPrediction.state.in_(TERMINAL), BatchPrediction.is_cleared.is_(False))
        .order_by(BatchPrediction.id)
        .limit(limit)
    )


def clear(batch_id: str) -> Update:
    return update(BatchPrediction).where(BatchPrediction.id == batch_id).values(is_cleared=True)
