"""The clients of a soak: processes of their own, each with connections that ask one after another and compare
what they are told."""

import asyncio
import contextlib
import json
import multiprocessing
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

import msgspec

from benchmarks.serving.soaked import DAMAGED, FLIPPED, TURNING, VERSIONS, Known, Soaked
from benchmarks.serving.tally import Tally

TOLERANCE = 1e-4
#: An answer that takes longer is lost.
PATIENCE_S = 60.0
#: The damaged version is asked less often: each time its file is read.
DAMAGED_PAUSE_S = 0.1
BUSY_PAUSE_S = 0.05
TOLD_EVERY_S = 1.0
STOP_WAIT_S = PATIENCE_S + 10
#: Rows in one request, so that their order is seen.
ROWS = 2


class ClientFailed(Exception):
    """A client's process did not end well: what it was told is not known. Its traceback is on the screen."""


@dataclass(frozen=True)
class Order:
    """What each process gets; `connections` of its own."""

    url: str
    key: str
    soaked: Soaked
    connections: int


class Tallies:
    """What the processes have told since it was last asked."""

    def __init__(self, told: "multiprocessing.Queue[Tally]") -> None:
        self._told = told

    def taken(self) -> Tally:
        whole = Tally()
        with contextlib.suppress(queue.Empty):
            while True:
                whole.add(self._told.get_nowait())
        return whole


@contextmanager
def at_work(order: Order, processes: int) -> Iterator[Tallies]:
    """They end with the block, each request of theirs answered or lost."""
    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    clients = [
        context.Process(target=_client, args=(order, stop, told), daemon=True) for _ in range(processes)
    ]
    for client in clients:
        client.start()
    try:
        yield Tallies(told)
    finally:
        stop.set()
        for client in clients:
            client.join(STOP_WAIT_S)
            if client.is_alive():
                client.kill()
                client.join()
    if any(client.exitcode for client in clients):
        raise ClientFailed(f"clients ended with {[client.exitcode for client in clients]}, expected all 0")


def _client(order: Order, stop: Event, told: "multiprocessing.Queue[Tally]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to the parent, which then stops us
    asyncio.run(_Client(order, told).run(stop))


class _Entry(msgspec.Struct):
    index: int
    score: float


class _Row(msgspec.Struct):
    top: list[_Entry] = []


class _Reply(msgspec.Struct):
    version: int
    predictions: list[_Row]


@dataclass(frozen=True)
class _Answer:
    status: int
    head: bytes
    body: bytes


class _Client:
    def __init__(self, order: Order, told: "multiprocessing.Queue[Tally]") -> None:
        self._order = order
        self._told = told
        self._tally = Tally()
        self._is_stopping = False
        self._decoder = msgspec.json.Decoder(_Reply)

    async def run(self, stop: Event) -> None:
        """One connection in sixteen asks the damaged version, one in four those that take turns."""
        asking = [
            asyncio.create_task(self._ask_damaged() if place % 16 == 15 else self._ask(place))
            for place in range(self._order.connections)
        ]
        while not stop.is_set():
            await asyncio.sleep(TOLD_EVERY_S)
            self._tell()
        self._is_stopping = True
        await asyncio.gather(*asking)
        self._tell()

    def _tell(self) -> None:
        self._told.put(self._tally)
        self._tally = Tally()

    async def _ask(self, place: int) -> None:
        known = self._order.soaked.known
        turning = [(f"{model}@{version}", model, {version}) for model in TURNING for version in VERSIONS]
        targets = turning if place % 4 == 3 else [(FLIPPED, FLIPPED, {*VERSIONS})]
        turn = place
        async with _Connection(self._order) as connection:
            while not self._is_stopping:
                reference, model, allowed = targets[turn % len(targets)]
                picture = turn % len(self._order.soaked.pictures)
                answer = await self._answer_of(connection, reference, picture)
                if answer is not None and answer.status != 200:
                    await self._count_refusal(reference, answer)
                elif answer is not None:
                    self._compare(answer, model, allowed, picture, known)
                turn += 1

    async def _ask_damaged(self) -> None:
        async with _Connection(self._order) as connection:
            while not self._is_stopping:
                answer = await self._answer_of(connection, DAMAGED, 0)
                if answer is not None and answer.status >= 500:
                    self._tally.damaged += 1
                elif answer is not None:
                    self._tally.wrong += 1
                    self._tally.note(f"{DAMAGED}: expected a 5xx, got {answer.status}: {answer.body[:200]!r}")
                await asyncio.sleep(DAMAGED_PAUSE_S)

    async def _answer_of(self, connection: "_Connection", reference: str, picture: int) -> _Answer | None:
        try:
            return await connection.ask(reference, picture)
        except (OSError, EOFError, TimeoutError) as error:
            self._tally.lost += 1
            self._tally.note(f"{reference}: no answer: {error!r}")
            await connection.close()
            return None

    async def _count_refusal(self, reference: str, answer: _Answer) -> None:
        if answer.status in (429, 503) and b"\r\nretry-after:" in answer.head.lower():
            self._tally.busy += 1
            await asyncio.sleep(BUSY_PAUSE_S)
        else:
            self._tally.undue += 1
            self._tally.note(f"{reference}: {answer.status}: {answer.body[:300]!r}")

    def _compare(
        self,
        answer: _Answer,
        model: str,
        allowed: set[int],
        picture: int,
        known: dict[tuple[str, int], Known],
    ) -> None:
        try:
            reply = self._decoder.decode(answer.body)
        except msgspec.DecodeError as error:
            self._tally.wrong += 1
            self._tally.note(f"{model}: {error}: {answer.body[:300]!r}")
            return
        if reply.version not in allowed:
            self._tally.wrong += 1
            self._tally.note(f"{model}: expected a version of {sorted(allowed)}, got {reply.version}")
            return
        expected = known[model, reply.version]
        rows = [expected[(picture + row) % len(expected)] for row in range(ROWS)]
        if len(reply.predictions) == ROWS and all(map(_is_same, reply.predictions, rows)):
            self._tally.answered(f"{model}@{reply.version}")
        else:
            self._tally.wrong += 1
            self._tally.note(f"{model}@{reply.version}, pictures from {picture}: {answer.body[:500]!r}")


def _is_same(row: _Row, expected: list[float]) -> bool:
    """All classes, each within the tolerance."""
    came = {entry.index: entry.score for entry in row.top}
    return len(came) == len(expected) and all(
        abs(came.get(index, 9.0) - score) <= TOLERANCE for index, score in enumerate(expected)
    )


class _Connection:
    """HTTP/1.1 over one socket, opened again when the service closes it."""

    def __init__(self, order: Order) -> None:
        self._host, self._port = urlsplit(order.url).hostname, urlsplit(order.url).port
        self._key = order.key
        self._bodies = _bodies(order.soaked)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> "_Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None

    async def ask(self, reference: str, picture: int) -> _Answer:
        """Raises OSError, EOFError or TimeoutError where no answer comes."""
        async with asyncio.timeout(PATIENCE_S):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(self._request(reference, self._bodies[picture]))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
        if b"\r\nconnection: close" in head.lower():
            await self.close()
        return _Answer(int(head[9:12]), head, body)

    def _request(self, reference: str, body: bytes) -> bytes:
        head = (
            f"POST /v1/models/{reference}/predict HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _bodies(soaked: Soaked) -> list[bytes]:
    """For each picture it and the next, with the scores of all classes asked for."""
    pictures = [pixels[0].tolist() for pixels in soaked.pictures]
    rows = [
        [pictures[(place + row) % len(pictures)] for row in range(ROWS)] for place in range(len(pictures))
    ]
    return [json.dumps({"instances": instances, "top_k": 10}).encode() for instances in rows]


def _length(head: bytes) -> int:
    """Raises ValueError where the reply does not say how long it is."""
    lines = head.lower().split(b"\r\n")
    return int(next(line[15:] for line in lines if line.startswith(b"content-length:")))
