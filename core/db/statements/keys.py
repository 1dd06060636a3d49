"""API keys and the replies remembered for an `Idempotency-Key`."""

from datetime import datetime

from sqlalchemy import ColumnElement, Delete, Select, delete, func, or_, select

from core.db.models import IdempotentReply, Key
from core.db.statements.paging import page


def find_key(secret_sha256: bytes) -> Select[Key]:
    return select(Key).where(Key.secret_sha256 == secret_sha256)


def list_keys(owner: str | None, after: str | None, limit: int) -> Select[Key]:
    """Of one owner, or of all."""
    query = select(Key)
    if owner is not None:
        query = query.where(Key.owner == owner)
    return page(query, Key.id, after, limit)


def get_key(owner: str | None, key_id: str) -> Select[Key]:
    query = select(Key).where(Key.id == key_id)
    return query if owner is None else query.where(Key.owner == owner)


def lock_working(owner: str, now: datetime) -> Select[Key]:
    """In one order, so that two who change keys of an owner cannot lock each other out."""
    return select(Key).where(Key.owner == owner, _works(now)).order_by(Key.id).with_for_update()


def count_working(owner: str, now: datetime) -> Select[int]:
    return select(func.count()).select_from(Key).where(Key.owner == owner, _works(now))


def revisions(key_ids: list[str]) -> Select[str, int]:
    return select(Key.id, Key.revision).where(Key.id.in_(key_ids), Key.revoked_at.is_(None))


def _works(now: datetime) -> ColumnElement[bool]:
    return Key.revoked_at.is_(None) & or_(Key.expires_at.is_(None), Key.expires_at > now)


def find_reply(owner: str, route: str, key: str) -> Select[IdempotentReply]:
    return select(IdempotentReply).where(
        IdempotentReply.owner == owner, IdempotentReply.route == route, IdempotentReply.key == key
    )


def forget_replies(before: datetime) -> Delete:
    return delete(IdempotentReply).where(IdempotentReply.created_at < before)
