"""What an owner may ask of a job that is there: stop it, set it aside, go on with it.

Each takes a row that the caller has locked, and tells what happened at once: an event to add, or none where
the job's worker has yet to do it. They raise Conflict where the state has no such arrow.
"""

from datetime import datetime

from core.db.models import Event, Job
from core.db.statements.jobs import TERMINAL, move
from core.errors import Conflict
from modelyard.specs import JobState, Wanted


def cancel(job: Job, at: datetime) -> Event | None:
    if job.state == JobState.RUNNING:
        _ask(job, Wanted.CANCEL)
        return None
    event = move(job, JobState.CANCELLED, "cancelled by its owner", at)
    job.wanted = Wanted.CANCEL
    return event


def pause(job: Job, at: datetime) -> Event | None:
    if job.state == JobState.RUNNING:
        if job.wanted == Wanted.CANCEL:
            raise _refusal(job, "is being cancelled: it cannot be paused")
        _ask(job, Wanted.PAUSE)
        return None
    event = move(job, JobState.PAUSED, "paused by its owner", at)
    job.wanted = Wanted.PAUSE
    return event


def resume(job: Job, at: datetime) -> Event | None:
    """A job that is asked to pause, and has not yet, goes on: the wish is taken back."""
    if job.state == JobState.PAUSED:
        event = move(job, JobState.QUEUED, "resumed by its owner", at)
        job.wanted = Wanted.RUN
        return event
    if job.wanted != Wanted.PAUSE or job.state in TERMINAL:
        raise _refusal(job, f"is {job.state} and not paused: there is nothing to resume")
    _ask(job, Wanted.RUN)
    return None


def _ask(job: Job, wanted: Wanted) -> None:
    """The supervisor reads it with its next beat."""
    job.wanted = wanted
    job.revision += 1


def _refusal(job: Job, why: str) -> Conflict:
    return Conflict(f"job {job.id} {why}", code="no_such_transition")
