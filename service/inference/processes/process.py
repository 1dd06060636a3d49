"""The service's end of one inference process: orders down, replies up, and how it ended."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import count
from typing import TypeVar, cast

from service.inference.files import VersionFiles
from service.inference.processes import messages, work
from service.inference.processes.messages import (
    LENGTH,
    Answered,
    Broke,
    Forget,
    Forward,
    Load,
    Loaded,
    Order,
    Refused,
    Reply,
    Up,
    Warm,
    Warmed,
)
from service.inference.processes.shared import Layout, Shared
from service.inference.processes.work import HELLO, UNASKED, Place

#: One that is born before the fork server is warm, or beside a busy machine, may need seconds.
START_S = 60.0
#: How long one that hangs gets to write where each of its threads stands.
STACKS_S = 0.5
#: A driver may hold what was killed for ever; nobody waits for that.
REAP_S = 10.0

_CONTEXT = multiprocessing.get_context("forkserver")

R = TypeVar("R", Up, Loaded, Warmed, Answered)


class Lost(Exception):
    """The process has ended, or was given up because something `is_overdue`. What this was raised for
    `may_be_why` where it was being done."""

    def __init__(self, *, is_overdue: bool = False, may_be_why: bool = True) -> None:
        super().__init__("the process has ended")
        self.is_overdue, self.may_be_why = is_overdue, may_be_why


class InferenceProcess(asyncio.Protocol):
    """For the event loop. `on_end` is called before anybody who waits hears that there is no answer."""

    def __init__(self, place: Place, on_end: Callable[[], None]) -> None:
        self.memory = Shared.create()
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._link, self._theirs = socket.socketpair()
        self._process = _CONTEXT.Process(
            target=work.main, args=(self._theirs, place), name=f"inference-{place.number}", daemon=True
        )
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._numbers = count(UNASKED + 1)
        self._came = bytearray()
        self._is_overdue = self._has_hung_up = False

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def start(self, thread: Executor) -> str:
        """Its device, once it takes orders. Raises OSError, EOFError or Lost; `reap` it then too."""
        await self._loop.run_in_executor(thread, self._launch)
        await self._loop.create_unix_connection(lambda: self, sock=self._link)
        return (await self._answer(UNASKED, None, START_S, Up)).device

    async def load(self, model: int, files: VersionFiles, deadline_s: float) -> int:
        """The bytes of what is loaded, and warm. Raises Lost, and what the load raises."""
        ask = next(self._numbers)
        order = Load(ask, model, files.name, str(files.manifest), str(files.weights))
        loaded = await self._answer(ask, order, deadline_s, Loaded)
        if not loaded.is_quick:
            ask = next(self._numbers)
            await self._answer(ask, Warm(ask, model), deadline_s, Warmed)
        return loaded.size_bytes

    async def forward(self, model: int, inputs: list[Layout], deadline_s: float) -> Answered:
        """Of what was stacked in `memory`, where the outputs then are. Raises Lost, and what the net does."""
        ask = next(self._numbers)
        order = Forward(ask, model, inputs, self.memory.size_bytes)
        answered = await self._answer(ask, order, deadline_s, Answered)
        self.memory.reach(answered.size_bytes)
        return answered

    def forget(self, model: int) -> None:
        if not self.ended.is_set():
            self._tell(Forget(model))

    def end(self, overdue: int | None = None) -> None:
        """Nothing more is asked of it, and whoever waits hears so; `overdue` is what it did not answer in
        time. It lives until it is reaped."""
        if self.ended.is_set():
            return
        self._is_overdue = overdue is not None
        self.ended.set()
        self._on_end()
        for ask, future in self._asked.items():
            if not future.done():
                future.set_exception(Lost(is_overdue=self._is_overdue, may_be_why=overdue in (None, ask)))

    async def reap(self, thread: Executor) -> str:
        """Kills it where it lives still; how it ended."""
        self.end()
        how = await self._loop.run_in_executor(thread, self._reap)
        if self._transport is not None:
            self._transport.abort()
        for end in (self._link, self._theirs):
            end.close()
        self.memory.close()
        return how

    def kill(self) -> None:
        """At once, from any thread."""
        if self._process.pid is not None:
            self._process.kill()

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone

    def data_received(self, data: bytes) -> None:
        self._came += data
        while len(self._came) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._came)[0]
            if len(self._came) < end:
                return
            reply = messages.decode_reply(self._came[LENGTH.size : end])
            del self._came[:end]
            future = self._asked.get(reply.ask)
            if future is not None and not future.done():
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._has_hung_up = True
        self.end()

    async def _answer(self, ask: int, order: Order | None, deadline_s: float, kind: type[R]) -> R:
        if self.ended.is_set():
            raise Lost(may_be_why=False)
        self._asked[ask] = future = self._loop.create_future()
        timer = self._loop.call_later(deadline_s, self.end, ask)
        try:
            if order is not None:
                self._tell(order)
            reply = await future
        finally:
            timer.cancel()
            del self._asked[ask]
        if isinstance(reply, Refused | Broke):
            raise messages.error_of(reply)
        assert isinstance(reply, kind)
        return reply

    def _tell(self, order: Order) -> None:
        assert self._transport is not None
        self._transport.write(messages.frame(order))

    # In a thread

    def _launch(self) -> None:
        """For as long as the fork server takes to be warm."""
        self._process.start()
        self._theirs.close()  # ours is the only other end: the process's death is an EOF here
        socket.send_fds(self._link, [HELLO], [self.memory.descriptor])
        self._link.setblocking(False)

    def _reap(self) -> str:
        if self._process.pid is None:
            return "it was not started"
        if self._is_overdue:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)
                time.sleep(STACKS_S)
        if self._has_hung_up:  # it is ending: how, is its own to say
            self._process.join(STACKS_S)
        self._process.kill()
        self._process.join(REAP_S)
        code = self._process.exitcode
        if self._is_overdue:
            return "killed at its deadline"
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
