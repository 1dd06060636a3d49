"""What a child is told: a job's row and its newest intact checkpoint, as files on this machine."""

from pathlib import Path
from typing import Any

import msgspec

from core.db.models import Checkpoint, Job
from core.db.statements import checkpoints, datasets, jobs
from core.storage.durable import Damaged, verify
from core.uploads import upload_key, uploads_of
from modelyard.specs import JobErrorCode
from workers.board import archive
from workers.house import House
from workers.ledger import WENT_ASTRAY, Ledger
from workers.messages import Order, Resume


class Unavailable(Exception):
    """A file that the job needs is gone."""

    def __init__(self, code: JobErrorCode, message: str, hint: str = "upload it again") -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


def order_of(house: House, job: Job, ledger: Ledger, scratch: Path, slots: list[int]) -> Order:
    """Of an attempt's first child. Raises Unavailable."""
    arrow, manifest = _dataset_files(house, job)
    resume = newest_intact(house, ledger, job.id)
    if resume is None and job.attempt > 1:
        ledger.rewind(None)
    with house.database.read() as session:
        went_astray = session.scalars(jobs.events_of_type(job.id, WENT_ASTRAY)).first() is not None
    return Order(
        job=job.id,
        fence=job.fence,
        spec=job.spec,
        arrow=str(arrow),
        manifest=str(manifest),
        scratch=str(scratch),
        cache=str(house.settings.packed_cache()),
        threads=house.settings.cpu_threads(),
        use_gpu=house.settings.pool == "gpu",
        resolved=job.resolved,
        resume=resume,
        uploads=_upload_files(house, job),
        plugins=house.settings.plugins,
        work=_work_per_step(job),
        steps=job.progress.get("steps") or 0,
        start=_start_file(house, job) if resume is None else None,
        careful=went_astray,
        board=archive.prepared(house, job),
        slots=tuple(slots),
        world=job.spec["trainer"].get("devices", 1),
    )


def order_again(house: House, job: Job, ledger: Ledger, order: Order, changes: dict[str, Any]) -> Order:
    """For another child of the attempt, from the newest checkpoint. Raises Unavailable."""
    resume = newest_intact(house, ledger, order.job)
    if resume is None:
        ledger.rewind(None)
    start = _start_file(house, job) if resume is None else None
    return msgspec.structs.replace(order, resume=resume, resolved=ledger.resolved, start=start, **changes)


def newest_intact(house: House, ledger: Ledger, job_id: str) -> Resume | None:
    """The newest checkpoint whose files are what was written; what is damaged is marked and passed over."""
    with house.database.read() as session:
        rows = session.scalars(checkpoints.ready_checkpoints(job_id)).all()
    for row in rows:
        files = intact(house, ledger, row)
        if files is not None:
            ledger.rewind(row)
            return Resume(*files)
    return None


def intact(house: House, ledger: Ledger, row: Checkpoint) -> tuple[str, str] | None:
    """Local files of the weights and the state; None where they are not what was written, which is marked."""
    try:
        weights = _verified(house, row.weights_key, row.weights_bytes, row.weights_sha256)
        state = _verified(house, row.state_key, row.state_bytes, row.state_sha256)
    except (Damaged, FileNotFoundError) as error:
        ledger.mark_corrupt(row, str(error))
        return None
    return str(weights), str(state)


def _dataset_files(house: House, job: Job) -> tuple[Path, Path]:
    with house.database.read() as session:
        dataset = session.scalars(datasets.dataset_of_job(job.dataset_id)).one()
    prefix = f"datasets/{job.dataset_id}/{dataset.fence}"
    try:
        return house.storage.fetch(f"{prefix}/data.arrow"), house.storage.fetch(f"{prefix}/manifest.json")
    except FileNotFoundError as error:
        message = f"the dataset's file {error} is gone"
        raise Unavailable(JobErrorCode.DATASET_UNAVAILABLE, message) from error


def _upload_files(house: House, job: Job) -> dict[str, str]:
    try:
        return {named: str(house.storage.fetch(upload_key(named))) for named in uploads_of(job.spec).values()}
    except FileNotFoundError as error:
        message = f"the upload {error} that the job names is gone"
        raise Unavailable(JobErrorCode.WEIGHTS_MISMATCH, message) from error


def _start_file(house: House, job: Job) -> str | None:
    """The weights that a fork begins with."""
    if job.start_checkpoint_id is None:
        return None
    with house.database.read() as session:
        row = session.get_one(Checkpoint, job.start_checkpoint_id)
    try:
        return str(_verified(house, row.weights_key, row.weights_bytes, row.weights_sha256))
    except (Damaged, FileNotFoundError) as error:
        message = (
            f"the weights of checkpoint {row.id}, which the job starts with, are damaged or gone: {error}"
        )
        hint = "fork from another checkpoint"
        raise Unavailable(JobErrorCode.WEIGHTS_MISMATCH, message, hint) from error


def _verified(house: House, key: str, size: int, sha256: str) -> Path:
    path = house.storage.fetch(key)
    verify(path, size, sha256)
    return path


def _work_per_step(job: Job) -> float | None:
    steps = job.progress.get("steps")
    return job.work / steps if job.work is not None and steps else None
