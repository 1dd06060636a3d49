"""Work that several may ask for at once, and that is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class OnceEach(Generic[T]):
    """By name. Who asks while it is under way gets the same outcome; who leaves takes it from nobody."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[T]] = {}

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.ensure_future(work())
            task.add_done_callback(lambda _: self._running.pop(name))
        return await asyncio.shield(task)
