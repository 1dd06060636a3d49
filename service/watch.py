"""Tells who waits that a row has changed: one watcher for all of them, and only while someone waits."""

import asyncio
from collections.abc import Awaitable, Callable

from core.errors import Unavailable

PERIOD_S = 0.1
MAX_WAITING = 2000

Revisions = Callable[[list[str]], Awaitable[dict[str, int]]]


class Watcher:
    """Every `period_s` one query for the revisions of all watched rows, and a fan-out in memory."""

    def __init__(self, revisions: Revisions, *, period_s: float = PERIOD_S, limit: int = MAX_WAITING) -> None:
        self._revisions = revisions
        self._period_s = period_s
        self._limit = limit
        self._waiting: dict[asyncio.Future[bool], tuple[str, int]] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_stopped = False

    async def changed(self, row_id: str, revision: int, timeout_s: float) -> bool:
        """True once the row's revision is another than the one seen, or the row is gone; False after
        `timeout_s` or when the service stops. Raises Unavailable where too many wait already, and what
        the query raises."""
        if self.is_stopped or timeout_s <= 0:
            return False
        if len(self._waiting) >= self._limit:
            raise Unavailable(
                f"{self._limit} requests wait for changes already; ask again without waiting, or later.",
                code="too_many_waiting",
                retry_after_s=5,
            )
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[future] = (row_id, revision)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(future, None)

    def stop(self) -> None:
        """Everybody who waits is answered with what there is."""
        self.is_stopped = True
        self._answer(lambda _row_id, _revision: False)

    async def _watch(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._period_s)
            watched = sorted({row_id for row_id, _ in self._waiting.values()})
            if not watched:
                continue
            try:
                current = await self._revisions(watched)
            except Exception as error:
                self._fail(error)
                continue
            asked = frozenset(watched)
            self._answer(
                lambda row_id, seen: True if row_id in asked and current.get(row_id) != seen else None  # noqa: B023 - called at once
            )
        self._task = None  # in the same step as the test above: nobody can have come in between

    def _answer(self, decide: Callable[[str, int], bool | None]) -> None:
        for future, (row_id, revision) in list(self._waiting.items()):
            answer = decide(row_id, revision)
            if answer is not None and not future.done():
                future.set_result(answer)

    def _fail(self, error: Exception) -> None:
        """The query failed: each waiter says so to its own client."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
