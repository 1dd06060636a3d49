"""Keys in memory: whose each is and what it may, without a query while it is in use.

What is remembered is good for `KEPT_S` from before the query that said so. Keys in use are asked for again
before that, all in one query and off the requests; so whoever revokes a key elsewhere waits no longer. Who
revokes one in this process says `forget`.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from core.db.engines import AsyncDatabase
from core.db.models import Key, utc_now
from core.db.statements import keys as statements
from core.errors import Unauthenticated
from service.auth import Principal, Scope
from service.together import Together

#: A key that was revoked by another process works for so long at most.
KEPT_S = 2.0
POLL_S = 0.5
MAX_KEPT = 10_000

#: The revisions of keys that were not revoked, by id.
Revisions = Callable[[list[str]], Awaitable[dict[str, int]]]


@dataclass
class _Kept:
    principal: Principal
    key_id: str
    revision: int
    expires_at: datetime | None
    until: float
    is_used: bool = True


class Keyring:
    def __init__(
        self,
        database: AsyncDatabase,
        revisions: Revisions,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database, self._revisions = database, revisions
        self._clock, self._now = clock, now
        self._kept: dict[bytes, _Kept] = {}
        self._forgotten = 0
        self._together: Together[tuple[bytes, int], Principal] = Together()

    def known(self, digest: bytes) -> Principal | None:
        """Whose the key is, where that is remembered. Called by every request."""
        kept = self._kept.get(digest)
        if kept is None or self._clock() >= kept.until:
            return None
        if kept.expires_at is not None and kept.expires_at <= self._now():
            return None
        kept.is_used = True
        return kept.principal

    async def look_up(self, digest: bytes) -> Principal:
        """Raises Unauthenticated for an unknown, expired or revoked key."""
        # Who asks after a key was forgotten is not answered by a query from before.
        return await self._together.ask((digest, self._forgotten), partial(self._look_up, digest))

    async def _look_up(self, digest: bytes) -> Principal:
        began, forgotten = self._clock(), self._forgotten
        async with self._database.read() as session:
            row = (await session.scalars(statements.find_key(digest))).one_or_none()
        principal = self._principal(row, digest)
        assert row is not None
        if forgotten == self._forgotten:  # else it may have been revoked since the query
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[digest] = _Kept(principal, row.id, row.revision, row.expires_at, began + KEPT_S)
        return principal

    def forget(self, key_id: str) -> None:
        """After the commit that revoked the key, or gave it another end."""
        self._forgotten += 1
        self._keep_all(lambda kept: kept.key_id != key_id)

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Asks whether the keys that were used of late are what they were."""
        began = self._clock()
        self._keep_all(lambda kept: kept.is_used or began < kept.until)
        used = [kept for kept in self._kept.values() if kept.is_used]
        if not used:
            return
        try:
            current = await self._revisions([kept.key_id for kept in used])
        except Exception:  # what is remembered ends by itself, and who looks it up then says what is wrong
            return
        for kept in used:
            kept.is_used = False
            if current.get(kept.key_id) == kept.revision:
                kept.until = began + KEPT_S
            else:
                kept.until = began
        self._keep_all(lambda kept: began < kept.until)

    def _principal(self, row: Key | None, digest: bytes) -> Principal:
        if row is None or not hmac.compare_digest(row.secret_sha256, digest):
            raise Unauthenticated("This key is not known here; ask for a new one.")
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= self._now()):
            raise Unauthenticated("This key was revoked or has expired; ask for a new one.")
        scopes = frozenset(Scope(scope) for scope in row.scopes)
        return Principal(row.owner, scopes, row.id, row.name, digest)

    def _keep_all(self, is_kept: Callable[[_Kept], bool]) -> None:
        self._kept = {digest: kept for digest, kept in self._kept.items() if is_kept(kept)}
