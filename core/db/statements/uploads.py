"""Resumable uploads and the pieces they came in."""

from datetime import datetime
from typing import Any

from sqlalchemy import Delete, Select, Update, delete, func, select, update

from core.db.models import Job, Upload, UploadPiece
from core.db.statements.jobs import TERMINAL


def get_upload(owner: str, upload_id: str) -> Select[Upload]:
    return select(Upload).where(Upload.id == upload_id, Upload.owner == owner)


def get_uploads(owner: str, upload_ids: list[str]) -> Select[Upload]:
    return select(Upload).where(Upload.id.in_(upload_ids), Upload.owner == owner)


def lock_upload(upload_id: str) -> Select[Upload]:
    return select(Upload).where(Upload.id == upload_id).with_for_update()


def advance(upload_id: str, offset: int, to: int, expires_at: datetime) -> Update:
    """Of two who bring the piece at `offset` one gets a row back."""
    return (
        update(Upload)
        .where(Upload.id == upload_id, Upload.offset == offset)
        .values(offset=to, expires_at=expires_at)
        .returning(Upload.id)
        .execution_options(synchronize_session=False)
    )


def complete(upload_id: str, sha256: str) -> Update:
    return update(Upload).where(Upload.id == upload_id).values(sha256=sha256)


def pieces_of(upload_id: str) -> Select[UploadPiece]:
    return select(UploadPiece).where(UploadPiece.upload_id == upload_id).order_by(UploadPiece.offset)


def forget_pieces(upload_id: str) -> Delete:
    return delete(UploadPiece).where(UploadPiece.upload_id == upload_id)


def delete_upload(upload_id: str) -> Delete:
    return delete(Upload).where(Upload.id == upload_id)


def expired(now: datetime, limit: int) -> Select[str]:
    return select(Upload.id).where(Upload.expires_at <= now).order_by(Upload.expires_at).limit(limit)


def kept_bytes(owner: str) -> Select[int | None]:
    """Of an owner's uploads, those that have not come yet too: the room is theirs."""
    return select(func.sum(Upload.length)).where(Upload.owner == owner)


def ids_among(upload_ids: list[str]) -> Select[str]:
    return select(Upload.id).where(Upload.id.in_(upload_ids))


def read_by_jobs() -> Select[str, list[Any] | None]:
    """Id and uploads of every job that has not ended."""
    return select(Job.id, Job.upload_ids).where(Job.state.not_in(TERMINAL))
