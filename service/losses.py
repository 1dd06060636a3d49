"""What becomes of work whose worker was lost: queued again, failed after too many losses, or cancelled."""

from datetime import datetime
from http import HTTPStatus

import msgspec

from core.db.engines import AsyncDatabase
from core.db.models import Dataset
from core.db.statements import batch_predictions, jobs, leases
from core.fault_points import reach
from core.settings import Settings
from modelyard.specs import JobErrorCode, JobState, Problem, Wanted


async def lose_job(
    database: AsyncDatabase, settings: Settings, job_id: str, fence: int, beat: int, at: datetime
) -> None:
    """Does nothing where the lease has moved since it was seen."""
    async with database.write() as session:
        job = (await session.scalars(leases.lock_lost_job(job_id, fence, beat))).one_or_none()
        if job is None:
            return
        event = leases.lose_job(
            job,
            "worker lost",
            at,
            max_losses=settings.max_losses,
            backoff_s=settings.retry_backoff_s,
        )
        session.add(event)
        reach("sweep.losing")
        await session.commit()


async def lose_batch(
    database: AsyncDatabase, settings: Settings, batch_id: str, fence: int, beat: int, at: datetime
) -> None:
    async with database.write() as session:
        query = batch_predictions.lock_lost(batch_id, fence, beat)
        batch = (await session.scalars(query)).one_or_none()
        if batch is None:
            return
        batch_predictions.lose(
            batch,
            "worker lost",
            at,
            max_losses=settings.max_losses,
            backoff_s=settings.retry_backoff_s,
        )
        await session.commit()


async def lose_dataset(
    database: AsyncDatabase, settings: Settings, dataset_id: str, fence: int, beat: int, at: datetime
) -> None:
    async with database.write() as session:
        dataset = (await session.scalars(leases.lock_lost_dataset(dataset_id, fence, beat))).one_or_none()
        if dataset is None:
            return
        dataset_after_loss(dataset, settings, at)
        await session.commit()


async def end_unwanted(database: AsyncDatabase, job_id: str, at: datetime) -> None:
    """A job can come back to the queue in the moment its owner cancels or pauses it; then no worker would
    claim it."""
    async with database.write() as session:
        job = (await session.scalars(jobs.lock_job(job_id))).one_or_none()
        if job is None or job.state != JobState.QUEUED or job.wanted == Wanted.RUN:
            return
        said = "cancelled" if job.wanted == Wanted.CANCEL else "paused"
        session.add(jobs.leave(job, f"{said} by its owner", at))
        await session.commit()


def dataset_after_loss(dataset: Dataset, settings: Settings, at: datetime) -> None:
    dataset.losses += 1
    dataset.revision += 1
    if dataset.losses < settings.max_losses:
        dataset.state = "queued"
        return
    code = JobErrorCode.WORKER_LOST
    problem = Problem(
        type=f"urn:modelyard:problem:{code}",
        title="Worker lost",
        status=int(HTTPStatus.UNPROCESSABLE_ENTITY),
        detail=f"{dataset.losses} workers were lost while they read this upload; "
        "see the workers' log for what ended them, then upload it again.",
        code=code,
    )
    dataset.state = "failed"
    dataset.error = msgspec.to_builtins(problem)
    dataset.finished_at = at
