"""Which rows keep which files in storage."""

from sqlalchemy import Select, select

from core.db.models import Checkpoint, Dataset, Job, Version
from modelyard.specs import JobState


def running_fences(job_ids: list[str]) -> Select[str, int]:
    """Of attempts that may be about to write a row."""
    return select(Job.id, Job.fence).where(Job.id.in_(job_ids), Job.state == JobState.RUNNING)


def kept_files(job_ids: list[str]) -> Select[str, str]:
    """Keys of weights and state of every checkpoint that was not collected."""
    return select(Checkpoint.weights_key, Checkpoint.state_key).where(
        Checkpoint.job_id.in_(job_ids), Checkpoint.state != "collected"
    )


def versions_among(version_ids: list[str]) -> Select[str]:
    return select(Version.id).where(Version.id.in_(version_ids))


def dataset_fences(dataset_ids: list[str]) -> Select[str, int]:
    """Of the attempt whose files are the dataset's, or will be."""
    return select(Dataset.id, Dataset.fence).where(Dataset.id.in_(dataset_ids))
