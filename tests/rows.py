"""Rows as the service writes them, for tests of statements and of those who run them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from core import ids
from core.db.engines import Database
from core.db.models import Base, Dataset, Job

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def create_tables(database: Database) -> None:
    Base.metadata.create_all(database.engine)


def add_dataset(session: Session, **fields: Any) -> Dataset:
    defaults: dict[str, Any] = {
        "id": ids.dataset_id(),
        "owner": "ada",
        "name": "digits",
        "version": 1,
        "state": "ready",
        "format": "auto",
        "options": {},
        "filename": "digits.zip",
        "source_key": "datasets/d/source",
        "bytes": 1,
        "sha256": "0" * 64,
        "created_at": AT,
    }
    row = Dataset(**(defaults | fields))
    session.add(row)
    session.flush()
    return row


def add_job(session: Session, dataset_id: str, **fields: Any) -> Job:
    defaults: dict[str, Any] = {
        "id": ids.job_id(),
        "owner": "ada",
        "name": "mlp",
        "state": "queued",
        "wanted": "run",
        "pool": "cpu",
        "dataset_id": dataset_id,
        "spec": {},
        "warnings": [],
        "progress": {},
        "metrics": {},
        "resolved": {},
        "transitions": [],
        "created_at": AT,
        "queued_at": AT,
    }
    row = Job(**(defaults | fields))
    session.add(row)
    session.flush()
    return row
