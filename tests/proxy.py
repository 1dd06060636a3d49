"""A TCP proxy between our processes and a broker or a database, on which a network can be broken."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PIECE_BYTES = 64 * 1024
#: To the kernel: close with a reset, as a machine does that knows nothing of the connection.
RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Connection:
    """`is_dark`: nothing passes any more, and neither end is told. `is_marked`: the client has sent the word
    whose commit is cut; `is_cut`: the commit was passed on, its answer will not be."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_dark: bool = False
    is_marked: bool = False
    is_cut: bool = False


@dataclass
class Proxy:
    """`target` is a port of this machine, or a unix socket. Runs in a thread of its own inside a `with`."""

    target: int | Path
    delay_s: float = 0.0
    port: int = 0
    cuts: int = 0
    _is_dark: bool = False
    _is_closed: bool = False
    _word: bytes | None = None
    _connections: set[Connection] = field(default_factory=set)
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What can be done to it

    def blackhole(self) -> None:
        """Packets are lost, in both directions, and those of new connections."""

        async def darken() -> None:
            self._is_dark = True
            for connection in self._connections:
                connection.is_dark = True

        self._run(darken())

    def heal(self) -> None:
        """New connections work. Those that were in the dark stay there: who has one must notice by itself."""

        async def lighten() -> None:
            self._is_dark = self._is_closed = False

        self._run(lighten())

    def refuse(self) -> None:
        """Resets all connections, and whoever comes."""

        async def close() -> None:
            self._is_closed = True
            for connection in list(self._connections):
                _reset(connection)

        self._run(close())

    def reset(self) -> None:
        """All connections, once."""

        async def reset() -> None:
            for connection in list(self._connections):
                _reset(connection)

        self._run(reset())

    def cut_commit_of(self, word: bytes) -> None:
        """The next transaction in which a client sends `word` is committed, and its client never hears so."""
        self._word = word

    # How it works

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            _reset(connection)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer, is_dark=self._is_dark)
        if self._is_closed:
            _reset(connection)
            return
        self._connections.add(connection)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass(connection, reader)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._connections.discard(connection)
            _reset(connection)

    async def _pass(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        if connection.is_dark:
            while await reader.read(PIECE_BYTES):
                pass
            return
        if isinstance(self.target, Path):
            answers, connection.server = await asyncio.open_unix_connection(self.target)
        else:
            answers, connection.server = await asyncio.open_connection("127.0.0.1", self.target)
        pumps = [
            asyncio.ensure_future(self._upwards(connection, reader, connection.server)),
            asyncio.ensure_future(self._downwards(connection, answers)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _upwards(
        self, connection: Connection, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(PIECE_BYTES):
            if connection.is_dark:
                continue
            await asyncio.sleep(self.delay_s)
            if self._word is not None and self._word in data:
                connection.is_marked, self._word = True, None
            if connection.is_marked and b"COMMIT" in data:
                connection.is_cut = True
            server.write(data)
            await server.drain()

    async def _downwards(self, connection: Connection, answers: asyncio.StreamReader) -> None:
        while data := await answers.read(PIECE_BYTES):
            if connection.is_cut:
                self.cuts += 1
                return
            if connection.is_dark:
                continue
            await asyncio.sleep(self.delay_s)
            connection.client.write(data)
            await connection.client.drain()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


def _reset(connection: Connection) -> None:
    for writer in (connection.client, connection.server):
        if writer is not None:
            with contextlib.suppress(OSError):
                sock = writer.get_extra_info("socket")
                if sock is not None and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
