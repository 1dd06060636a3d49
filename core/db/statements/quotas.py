"""How much of an owner's share is in use. Each count goes no further than the share."""

from sqlalchemy import Select, func, select

from core.db.models import BatchPrediction, Job, Upload
from modelyard.specs import BatchState, JobState


def count_queued_jobs(owner: str, most: int) -> Select[int]:
    found = select(Job.id).where(Job.owner == owner, Job.state == JobState.QUEUED).limit(most).subquery()
    return select(func.count()).select_from(found)


def count_queued_batches(owner: str, most: int) -> Select[int]:
    is_waiting = (BatchPrediction.owner == owner) & (BatchPrediction.state == BatchState.QUEUED)
    found = select(BatchPrediction.id).where(is_waiting).limit(most).subquery()
    return select(func.count()).select_from(found)


def count_uploads(owner: str, most: int) -> Select[int]:
    found = select(Upload.id).where(Upload.owner == owner).limit(most).subquery()
    return select(func.count()).select_from(found)
