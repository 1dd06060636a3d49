"""Which version a name stands for: not a query for every request, and never an older one than promised."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.errors import NotFound
from service.inference import names
from service.inference.names import KEPT_S, Names

ASKED = ("me", "m", None)


class House:
    """A database whose answer is the number of the query, given once `answers`; a clock; SQLite's counter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_sqlite: bool = False) -> None:
        self.queries, self.seconds, self.commits = 0, 0.0, 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        monkeypatch.setattr(names, "_find", self._find)
        database: Any = self
        changes: Any = self if is_sqlite else None
        self.names = Names(database, changes, clock=lambda: self.seconds)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        yield

    def number(self) -> int:
        return self.commits

    async def _find(self, *_asked: object) -> int:
        self.queries += 1
        mine = self.queries
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return mine

    async def resolve(self) -> Any:
        return await self.names.resolve(*ASKED)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_of_many_who_ask_at_once_one_asks_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch)
    assert await asyncio.gather(*(house.resolve() for _ in range(50))) == [1] * 50
    assert house.queries == 1


async def test_what_grows_old_is_asked_again_beside_the_requests_and_too_old_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(monkeypatch)
    assert await house.resolve() == 1
    house.seconds = 0.4 * KEPT_S
    assert await house.resolve() == 1
    await house.settle()
    assert house.queries == 1, "young"
    house.seconds = 0.6 * KEPT_S
    assert [await house.resolve() for _ in range(3)] == [1] * 3
    await house.settle()
    assert house.queries == 2, "once, and nobody waited"
    assert await house.resolve() == 2
    house.seconds += KEPT_S
    assert await house.resolve() == 3


async def test_a_query_that_fails_beside_the_requests_fails_the_one_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(monkeypatch)
    await house.resolve()
    house.error, house.seconds = NotFound("gone"), 0.6 * KEPT_S
    assert await house.resolve() == 1
    await house.settle()
    house.seconds = KEPT_S
    with pytest.raises(NotFound):
        await house.resolve()


async def test_who_asks_after_an_alias_moved_is_not_answered_by_a_query_from_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(monkeypatch)
    house.answers.clear()
    before = asyncio.create_task(house.resolve())
    await house.settle()
    house.names.forget("me", "m")
    after = asyncio.create_task(house.resolve())
    await house.settle()
    house.answers.set()
    assert [await before, await after] == [1, 2]
    assert await house.resolve() == 2


async def test_on_sqlite_a_commit_is_heard_by_the_next_request_and_nothing_grows_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(monkeypatch, is_sqlite=True)
    assert await house.resolve() == 1
    await house.settle()
    house.seconds = 100 * KEPT_S
    assert await house.resolve() == 1
    await house.settle()
    house.commits += 1
    assert await house.resolve() == 2
