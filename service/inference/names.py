"""Which concrete version a name stands for, remembered for a moment: a query takes longer than a forward.

A request resolves its name once and is answered by that version, whose content never changes. On SQLite
whatever anybody commits is heard by the next request. On a database server whoever moves an alias or deletes
a version says `forget`, so that this process follows at once; others follow within `KEPT_S`. Who asks in the
second half of that time is answered from memory still, and sets off the next query.
"""

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.changes import Changes
from core.db.engines import AsyncDatabase
from core.db.models import Checkpoint, Version
from core.db.statements import models
from core.errors import Conflict, NotFound
from service.models import MAX_NUMBER, unknown_model
from service.together import Together

KEPT_S = 1.0
MAX_KEPT = 10_000

#: Taken where it is set and no version is named.
DEFAULT_ALIAS = "production"

#: A version, and the checkpoint that holds its weights.
Found = tuple[Version, Checkpoint]
#: Owner, name and reference.
Asked = tuple[str, str, str | None]


class Names:
    def __init__(
        self,
        database: AsyncDatabase,
        changes: Changes | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._changes, self._clock = database, changes, clock
        # From when the query of each is too old to be taken.
        self._kept: dict[Asked, tuple[Found, float]] = {}
        # By what was forgotten and seen when it was asked, too: an alias may move during a query.
        self._together: Together[tuple[Asked, int, int | None], Found] = Together()
        self._seen: int | None = None
        self._forgotten = 0
        self._has_looked = False

    async def resolve(self, owner: str, name: str, reference: str | None) -> Found:
        """`reference` is a version, an alias or `latest`; None is the alias `production`, else the newest
        ready. Raises NotFound, and Conflict where the version can't predict."""
        if self._has_changed():
            self._kept.clear()
        asked = owner, name, reference
        found, until = self._kept.get(asked, (None, 0.0))
        left_s = until - self._clock()
        if found is None or left_s <= 0:
            return await self._together.ask((asked, self._forgotten, self._seen), partial(self._find, asked))
        if left_s < KEPT_S / 2:
            self._together.begin((asked, self._forgotten, self._seen), partial(self._find, asked))
        return found

    async def _find(self, asked: Asked) -> Found:
        before, seen, began = self._forgotten, self._seen, self._clock()
        async with self._database.read() as session:
            found = await _find(session, *asked)
        if before == self._forgotten and seen == self._seen:  # else an alias may have moved since the query
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[asked] = found, math.inf if seen is not None else began + KEPT_S
        return found

    def _has_changed(self) -> bool:
        """Looks once in a turn of the event loop: who was told of a commit asks in a later one."""
        if self._changes is None or self._has_looked:
            return False
        self._has_looked = True
        asyncio.get_running_loop().call_soon(self._look_again)
        before, self._seen = self._seen, self._changes.number()
        return self._seen is None or self._seen != before

    def _look_again(self) -> None:
        self._has_looked = False

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
