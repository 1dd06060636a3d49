"""What past trainings took, for those who ask how long the next one will."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from core.db.models import Job
from modelyard.specs import JobState


def past_trainings(pool: str, limit: int) -> Select[datetime, datetime, float, dict[str, Any], int | None]:
    """Start, end, work by the plan, progress and batches a step of the newest that succeeded in one go, so
    that no time in the queue stands between."""
    return (
        select(
            Job.started_at,
            Job.finished_at,
            Job.work,
            Job.progress,
            Job.spec["trainer"]["accumulate"].as_integer(),
        )
        .where(
            Job.pool == pool,
            Job.state == JobState.SUCCEEDED,
            Job.attempt == 1,
            Job.work > 0,
            Job.started_at.is_not(None),
            Job.finished_at.is_not(None),
        )
        .order_by(Job.finished_at.desc())
        .limit(limit)
    )
