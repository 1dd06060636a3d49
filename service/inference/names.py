"""Which concrete version a name stands for, remembered for a moment: a query takes longer than a forward.

A request resolves its name once and is answered by that version, whose content never changes. On SQLite
whatever anybody commits is heard by the next request. On a database server whoever moves an alias or deletes
a version says `forget`, so that this process follows at once; others follow within `KEPT_S`.
"""

import time
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.changes import Changes
from core.db.engines import AsyncDatabase
from core.db.models import Checkpoint, Version
from core.db.statements import models
from core.errors import Conflict, NotFound
from service.models import MAX_NUMBER, unknown_model

KEPT_S = 1.0
MAX_KEPT = 10_000

#: Taken where it is set and no version is named.
DEFAULT_ALIAS = "production"

#: A version, and the checkpoint that holds its weights.
Found = tuple[Version, Checkpoint]


class Names:
    def __init__(
        self,
        database: AsyncDatabase,
        changes: Changes | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._changes, self._clock = database, changes, clock
        self._kept: dict[tuple[str, str, str | None], tuple[Found, float]] = {}
        self._seen: int | None = None
        self._forgotten = 0

    async def resolve(self, owner: str, name: str, reference: str | None) -> Found:
        """`reference` is a version, an alias or `latest`; None is the alias `production`, else the newest
        ready. Raises NotFound, and Conflict where the version can't predict."""
        if self._has_changed():
            self._kept.clear()
        key = owner, name, reference
        found, until = self._kept.get(key, (None, 0.0))
        if found is not None and self._clock() < until:
            return found
        before, seen = self._forgotten, self._seen
        async with self._database.read() as session:
            found = await _find(session, owner, name, reference)
        if before == self._forgotten and seen == self._seen:  # else an alias may have moved since the query
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = found, self._clock() + KEPT_S
        return found

    def _has_changed(self) -> bool:
        if self._changes is None:
            return False
        before, self._seen = self._seen, self._changes.number()
        return self._seen is None or self._seen != before

    def forget(self, owner: str, name: str) -> None:
        """After the commit that moved an alias of the model, or deleted a version."""
        self._forgotten += 1
        for key in [key for key in self._kept if key[:2] == (owner, name)]:
            del self._kept[key]


async def _find(session: AsyncSession, owner: str, name: str, reference: str | None) -> Found:
    row = await _version(session, owner, name, reference)
    if row is None:
        first = (await session.scalars(models.first_version(owner, name))).one_or_none()
        if first is None:
            raise unknown_model(name)
        if reference is None or reference == "latest":
            raise Conflict(f"{name} has no ready version yet.", code="no_ready_version")
        raise NotFound(
            f"{name} has no version or alias {reference[:100]!r}; GET /v1/models/{name} lists them."
        )
    if row.state != models.READY:
        raise Conflict(f"{name}@{row.version} is {row.state}: it cannot predict.", code="version_not_ready")
    return row, (await session.scalars(models.weights_of(row.id))).one()


async def _version(session: AsyncSession, owner: str, name: str, reference: str | None) -> Version | None:
    if reference is not None and reference.isascii() and reference.isdigit():
        if len(reference) > len(str(MAX_NUMBER)) or int(reference) > MAX_NUMBER:
            return None
        return (await session.scalars(models.get_version(owner, name, int(reference)))).one_or_none()
    if reference != "latest":
        query = models.get_alias(owner, name, DEFAULT_ALIAS if reference is None else reference)
        alias = (await session.scalars(query)).one_or_none()
        if alias is not None:
            return (await session.scalars(models.get_version(owner, name, alias.version))).one_or_none()
        if reference is not None:
            return None
    return (await session.scalars(models.newest_ready(owner, name))).one_or_none()
