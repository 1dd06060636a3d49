"""API keys and the replies remembered for an `Idempotency-Key`."""

from datetime import datetime

from sqlalchemy import Delete, Select, delete, func, select

from core.db.models import IdempotentReply, Key


def find_key(secret_sha256: bytes) -> Select[Key]:
    return select(Key).where(Key.secret_sha256 == secret_sha256)


def count_keys() -> Select[int]:
    return select(func.count()).select_from(Key)


def find_reply(owner: str, route: str, key: str) -> Select[IdempotentReply]:
    return select(IdempotentReply).where(
        IdempotentReply.owner == owner, IdempotentReply.route == route, IdempotentReply.key == key
    )


def forget_replies(before: datetime) -> Delete:
    return delete(IdempotentReply).where(IdempotentReply.created_at < before)
