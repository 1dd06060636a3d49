"""Which files the rows of a database name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVarTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from core import boards
from core.db.models import (
    BatchPrediction,
    Checkpoint,
    Dataset,
    Job,
    PredictionPart,
    Upload,
    UploadPiece,
    Version,
)
from core.db.statements.batch_predictions import TERMINAL
from core.db.statements.datasets import DELETED
from core.storage import Storage
from core.storage.keys import data_key, suspects_key
from core.uploads import upload_key

Columns = TypeVarTuple("Columns")

#: Rows read at once.
BATCH = 10_000


@dataclass(frozen=True)
class NamedFile:
    """`is_needed`: the row cannot be used without it. `sha256` where the row says it."""

    key: str
    is_needed: bool = True
    sha256: str | None = None


def named_files(session: Session) -> Iterator[NamedFile]:
    yield from _of_datasets(session)
    yield from _of_uploads(session)
    yield from _of_checkpoints(session)
    yield from _of_versions(session)
    yield from _of_jobs(session)
    yield from _of_batch_predictions(session)


def board_files(session: Session, storage: Storage) -> Iterator[NamedFile]:
    """Event files of the jobs that are there: no row names them, their keys do."""
    known = set(session.scalars(select(Job.id)))
    for job_id, key in boards.all_archives(storage):
        if job_id in known:
            yield NamedFile(key, is_needed=False)


def _of_datasets(session: Session) -> Iterator[NamedFile]:
    query = select(Dataset.id, Dataset.state, Dataset.fence, Dataset.source_key)
    for row in session.execute(_in_batches(query.where(Dataset.state != DELETED))):
        if row.source_key:
            yield NamedFile(row.source_key, is_needed=row.state in ("queued", "ingesting"))
        if row.state == "ready":
            key = data_key(row.id, row.fence)
            yield NamedFile(key)
            yield NamedFile(f"{key.rpartition('/')[0]}/manifest.json")


def _of_uploads(session: Session) -> Iterator[NamedFile]:
    for row in session.execute(
        _in_batches(select(Upload.id, Upload.sha256).where(Upload.sha256.is_not(None)))
    ):
        yield NamedFile(upload_key(row.id), sha256=row.sha256)
    for key in session.scalars(_in_batches(select(UploadPiece.key))):
        yield NamedFile(key)


def _of_checkpoints(session: Session) -> Iterator[NamedFile]:
    """Those that were collected have none any more, and those found corrupt may have none."""
    query = select(
        Checkpoint.state,
        Checkpoint.weights_key,
        Checkpoint.weights_sha256,
        Checkpoint.state_key,
        Checkpoint.state_sha256,
    )
    for row in session.execute(_in_batches(query.where(Checkpoint.state != "collected"))):
        is_ready = row.state == "ready"
        yield NamedFile(row.weights_key, is_ready, row.weights_sha256 if is_ready else None)
        yield NamedFile(row.state_key, is_ready, row.state_sha256 if is_ready else None)


def _of_versions(session: Session) -> Iterator[NamedFile]:
    query = select(Version.manifest_key, Version.manifest_sha256).where(Version.state != "deleted")
    for row in session.execute(_in_batches(query)):
        yield NamedFile(row.manifest_key, sha256=row.manifest_sha256)


def _of_jobs(session: Session) -> Iterator[NamedFile]:
    """What an attempt that ended a job left, if there was one."""
    for row in session.execute(_in_batches(select(Job.id, Job.fence).where(Job.fence > 0))):
        yield NamedFile(suspects_key(row.id, row.fence), is_needed=False)


def _of_batch_predictions(session: Session) -> Iterator[NamedFile]:
    for results in session.scalars(_in_batches(select(BatchPrediction.results))):
        for file in (results or {}).values():
            yield NamedFile(file["key"], sha256=file["sha256"])
    unended = (
        select(PredictionPart.key, PredictionPart.sha256)
        .join(BatchPrediction, BatchPrediction.id == PredictionPart.batch_id)
        .where(BatchPrediction.state.not_in(TERMINAL))
    )
    for row in session.execute(_in_batches(unended)):
        yield NamedFile(row.key, sha256=row.sha256)


def _in_batches(query: Select[*Columns]) -> Select[*Columns]:
    return query.execution_options(yield_per=BATCH)
