"""Jobs: their rows, and the one place where a job changes its state."""

from datetime import datetime
from typing import Any, assert_never

from sqlalchemy import Select, delete, select, tuple_
from sqlalchemy.sql.dml import Delete

from core.db.models import Dataset, Event, Job, Metric
from core.db.statements.paging import page
from core.errors import Conflict
from modelyard.specs import JobState, Wanted

#: Every arrow there is; a terminal state has none.
ARROWS: dict[JobState, frozenset[JobState]] = {
    # queued: to a worker that claims it; to paused or cancelled by its owner; to failed after too many losses
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    # running: to paused or cancelled by its owner; to queued when its worker was lost or drained, or when a
    # job of a higher priority took its place
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PAUSED, JobState.QUEUED}
    ),
    # paused: both by its owner
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, arrows in ARROWS.items() if not arrows)


def move(job: Job, state: JobState, reason: str, at: datetime) -> Event:
    """Moves a row that the caller has locked; returns the event to add in the same transaction.

    Raises Conflict where the state has no such arrow.
    """
    if state not in ARROWS[JobState(job.state)]:
        raise Conflict(f"job {job.id} is {job.state}: it cannot become {state}", code="no_such_transition")
    job.state = state
    job.preempted_by = None  # what was asked of one attempt is not asked of the next
    job.transitions = [*job.transitions, {"state": state, "at": at.isoformat(), "reason": reason}]
    if state is JobState.QUEUED:
        job.queued_at = at
    if state in TERMINAL:
        job.finished_at = at
    return add_event(job, "state", {"state": state, "reason": reason}, at)


def leave(job: Job, reason: str, at: datetime) -> Event:
    """The attempt of a locked running job has ended before its job: where the owner wants it, else back to
    the queue. It is the row that says what is wanted, for the wish may have changed since it was heard."""
    match Wanted(job.wanted):
        case Wanted.CANCEL:
            return move(job, JobState.CANCELLED, reason, at)
        case Wanted.PAUSE:
            return move(job, JobState.PAUSED, reason, at)
        case Wanted.RUN:
            return move(job, JobState.QUEUED, reason, at)
        case wanted:
            assert_never(wanted)


def add_event(job: Job, kind: str, data: dict[str, Any], at: datetime) -> Event:
    """The next event of a locked row. The number comes from the job's own counter: a sequence shared
    by all jobs commits out of order, and who reads "after n" loses what commits late."""
    job.event_seq += 1
    job.revision += 1
    return Event(job_id=job.id, seq=job.event_seq, type=kind, at=at, data=data)


def get_job(owner: str, job_id: str) -> Select[Job]:
    return select(Job).where(Job.id == job_id, Job.owner == owner)


def lock_job(job_id: str, *, owner: str | None = None, fence: int | None = None) -> Select[Job]:
    """The row, held until the transaction ends. With `fence`, only while that attempt owns it."""
    query = select(Job).where(Job.id == job_id)
    if owner is not None:
        query = query.where(Job.owner == owner)
    if fence is not None:
        query = query.where(Job.fence == fence, Job.state == JobState.RUNNING)
    return query.with_for_update()


def list_jobs(
    owner: str, *, state: str | None, name: str | None, after: str | None, limit: int
) -> Select[Job]:
    query = select(Job).where(Job.owner == owner)
    if state is not None:
        query = query.where(Job.state == state)
    if name is not None:
        query = query.where(Job.name == name)
    return page(query, Job.id, after, limit)


def datasets_of(dataset_ids: list[str]) -> Select[str, str, int, str]:
    """id, name, version, sha256 of the datasets that a page of jobs learns from."""
    return select(Dataset.id, Dataset.name, Dataset.version, Dataset.sha256).where(
        Dataset.id.in_(dataset_ids)
    )


def revisions(job_ids: list[str]) -> Select[str, int]:
    return select(Job.id, Job.revision).where(Job.id.in_(job_ids))


def events_of_type(job_id: str, kind: str) -> Select[Event]:
    return select(Event).where(Event.job_id == job_id, Event.type == kind).order_by(Event.seq)


def events_after(job_id: str, after: int, limit: int) -> Select[Event]:
    return select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)


def metrics_after(
    job_id: str, names: list[str] | None, after: tuple[int, str] | None, limit: int
) -> Select[Metric]:
    """In the order of step, then name; `after` is the last (step, name) already seen."""
    query = select(Metric).where(Metric.job_id == job_id)
    if names:
        query = query.where(Metric.name.in_(names))
    if after is not None:
        # As one row value: a database goes to its place in the index, which it does not for an OR.
        query = query.where(tuple_(Metric.step, Metric.name) > tuple_(*after))
    return query.order_by(Metric.step, Metric.name).limit(limit)


def forget_metrics_after(job_id: str, step: int) -> Delete:
    """A resumed attempt goes on from `step`: what lies after it did not happen."""
    return delete(Metric).where(Metric.job_id == job_id, Metric.step > step)
