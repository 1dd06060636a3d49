"""The caller of the request under way: whoever makes them wait may ask to be stopped when they leave."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TypeAlias

from core.errors import Malformed

#: As the server has it. Inference processes import this, and no framework with it.
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, object]]]

#: Nobody is watched before they have waited for so long: most have their answer by then, at no cost.
PATIENCE_S = 0.05

#: What the server says of the request under way, once its body was read: that the client has left.
heard_from: ContextVar[Receive | None] = ContextVar("heard_from", default=None)


class WhileThere:
    """Around what is done for the caller, once all of the request's body was read. Stops it, and raises
    Malformed, when they close their connection. As `asyncio.timeout`, it tells its own cancelling from
    another's."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._has_left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "requests are answered in tasks"
        self._task, self._cancelling = task, task.cancelling()
        receive = heard_from.get()
        if receive is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._watch, receive)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._has_left and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Malformed("The connection was closed before the answer.", code="caller_left")

    def _watch(self, receive: Receive) -> None:
        self._watching = asyncio.create_task(self._until_they_leave(receive))

    async def _until_they_leave(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self._task.cancel()
