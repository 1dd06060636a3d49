"""Keys are made, rotated and revoked here. An admin does so for their own owner; the operator, an admin of
the owner `default`, for every owner. Whoever asks for another owner's key is told that there is none.
"""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.db.models import Key, utc_now
from core.db.statements import keys
from core.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from modelyard import specs
from modelyard.specs import KeyRequest, ProblemError, RotationRequest, Scope
from service.auth import DEFAULT_OWNER, Principal
from service.idempotency import Once, in_flight
from service.keys import digest_of, new_key
from service.parts import Parts
from service.views import key_view

#: Seconds of Retry-After where an owner has as many keys as they may: somebody has to revoke one.
QUOTA_RETRY_S = 60


async def create(parts: Parts, who: Principal, asked: KeyRequest, once: Once) -> Response[Any]:
    """201 and the new key. What is remembered for an Idempotency-Key has no key in it: that was shown, and is
    stored nowhere. Raises Forbidden for another's owner, Invalid, TooMany, Conflict."""
    if asked.owner is not None and asked.owner != who.owner and not who.is_operator:
        raise Forbidden(
            f"Only an admin of the owner {DEFAULT_OWNER!r} makes keys for another one; leave owner out.",
            code="another_owner",
        )
    now = utc_now()
    _require_future(asked.expires_at, now)
    row, key = _made(
        owner=asked.owner or who.owner,
        name=asked.name,
        scopes=[scope for scope in Scope if scope in asked.scopes],
        now=now,
        expires_at=asked.expires_at,
    )
    async with parts.database.write() as session:
        if (earlier := await once.earlier(session)) is not None:
            return earlier
        await _require_room(session, parts, row.owner, now)
        session.add(row)
        once.remember(session, HTTPStatus.CREATED, msgspec.to_builtins(key_view(row)), _place(row))
        try:
            await session.commit()
        except IntegrityError as error:
            raise in_flight() from error
    return _shown(row, key)


async def rotate(parts: Parts, who: Principal, key_id: str, asked: RotationRequest) -> Response[specs.Key]:
    """201 and a new key beside the old one, which gets an end. Raises NotFound, TooMany, and Conflict where
    the old one has ended."""
    now = utc_now()
    _require_future(asked.expires_at, now)
    async with parts.database.write() as session:
        old = await _locked(session, who, key_id, now)
        if not _works(old, now):
            raise Conflict(
                f"{old.id} was revoked or has expired, and can't be rotated; POST /v1/keys makes another.",
                code="key_ended",
            )
        lives = old.expires_at - old.created_at if old.expires_at is not None else None
        row, key = _made(
            owner=old.owner,
            name=old.name,
            scopes=[Scope(scope) for scope in old.scopes],
            now=now,
            expires_at=asked.expires_at or (now + lives if lives is not None else None),
            rotated_from=old.id,
        )
        await _require_room(session, parts, row.owner, now)
        session.add(row)
        ends = now + timedelta(seconds=asked.overlap_s)
        old.expires_at = min(ends, old.expires_at) if old.expires_at is not None else ends
        old.revision += 1
        await session.commit()
    parts.keyring.forget(old.id)
    return _shown(row, key)


async def revoke(parts: Parts, who: Principal, key_id: str) -> None:
    """At once here, within two seconds elsewhere; once revoked it stays so. Raises NotFound, and Conflict for
    the last key that may make others for every owner."""
    now = utc_now()
    async with parts.database.write() as session:
        row = await _locked(session, who, key_id, now)
        if row.revoked_at is not None:
            return
        await _require_another_operator(session, row, now)
        row.revoked_at = now
        row.revision += 1
        await session.commit()
    parts.keyring.forget(row.id)


def owner_seen_by(who: Principal) -> str | None:
    """Whose keys and changes somebody may see: None for everybody's."""
    return None if who.is_operator else who.owner


def unknown_key(key_id: str) -> NotFound:
    return NotFound(f"You have no key {key_id[:100]}; GET /v1/keys lists them.")


def _shown(row: Key, key: str) -> Response[specs.Key]:
    """The one answer that holds the key."""
    view = key_view(row)
    view.key = key
    headers = {**_place(row), "Cache-Control": "no-store"}
    return Response(view, status_code=HTTPStatus.CREATED, headers=headers)


def _place(row: Key) -> dict[str, str]:
    return {"Location": f"/v1/keys/{row.id}"}


async def _locked(session: AsyncSession, who: Principal, key_id: str, now: datetime) -> Key:
    """The key, and with it all of its owner that work: of two who revoke the last two, one is refused."""
    row = (await session.scalars(keys.get_key(owner_seen_by(who), key_id))).one_or_none()
    if row is None:
        raise unknown_key(key_id)
    await session.scalars(keys.lock_working(row.owner, now))
    await session.refresh(row)
    return row


async def _require_another_operator(session: AsyncSession, row: Key, now: datetime) -> None:
    if row.owner != DEFAULT_OWNER or Scope.ADMIN not in row.scopes or not _works(row, now):
        return
    working = await session.scalars(keys.lock_working(DEFAULT_OWNER, now))
    if not any(Scope.ADMIN in other.scopes for other in working if other.id != row.id):
        raise Conflict(
            f"{row.id} is the last key that may make others for every owner. If it leaked, rotate it: "
            f'POST /v1/keys/{row.id}/rotate {{"overlap_s": 0}} ends it at once.',
            code="last_admin_key",
        )


async def _require_room(session: AsyncSession, parts: Parts, owner: str, now: datetime) -> None:
    limit = parts.settings.max_keys
    if (await session.scalars(keys.count_working(owner, now))).one() >= limit:
        raise TooMany(
            f"{owner} has {limit} keys that work, and may have no more; revoke one.",
            code="over_quota",
            retry_after_s=QUOTA_RETRY_S,
        )


def _require_future(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        message = f"expected a time to come, got {expires_at.isoformat()}; name a later one, or leave it out"
        raise Invalid(f"{message}.", errors=[ProblemError("/expires_at", "invalid", message)])


def _made(
    *,
    owner: str,
    name: str,
    scopes: list[Scope],
    now: datetime,
    expires_at: datetime | None,
    rotated_from: str | None = None,
) -> tuple[Key, str]:
    key = new_key()
    row = Key(
        id=ids.key_id(),
        owner=owner,
        name=name,
        secret_sha256=digest_of(key),
        scopes=list(scopes),
        revision=0,
        rotated_from=rotated_from,
        created_at=now,
        expires_at=expires_at,
    )
    return row, key


def _works(row: Key, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)
