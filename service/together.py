"""What several ask for at once, and is done once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """Of many who ask the same at once one goes to the database: else each of a hundred open connections
    would, at the moment when what was remembered is too old. So it is with work that must not be done
    twice."""

    def __init__(self) -> None:
        self._asking: dict[K, asyncio.Task[V]] = {}

    async def ask(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """What it raises reaches all who wait; the next call asks again."""
        # Who leaves must not take the answer away from the others.
        return await asyncio.shield(self.begin(key, ask))

    def begin(self, key: K, ask: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        """The question under way: the one before where it is not answered yet."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(_asked(ask))
            task.add_done_callback(lambda done: self._answered(key, done))
        return task

    def _answered(self, key: K, done: "asyncio.Task[V]") -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # nobody may be waiting for it: that is no mistake


async def _asked(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()
