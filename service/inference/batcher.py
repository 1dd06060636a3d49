"""Rows of many callers in one forward: pure timing, no torch, no HTTP.

Nobody waits while a net is idle: whoever came in the same turn of the event loop goes through together.
While a forward runs, whoever comes waits for the next one, which takes all that there is room for. So a
batch is as large as the load makes it, and no timer is needed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from core.errors import Unavailable

#: Rows in one forward: more bring little on a CPU, and make those wait that came first.
MAX_ROWS = 32
#: What may wait for one model.
MAX_WAITING_ROWS = 4096
MAX_WAITING_BYTES = 256 * 1024 * 1024
#: Whoever would wait longer is refused as they come.
MAX_WAIT_S = 10.0
#: How much the latest forward counts for in the estimate of what a row takes.
NEWEST_SHARE = 0.2

R = TypeVar("R")


class Answers(Protocol):
    """Of the rows of one forward, in order; a tensor is one."""

    def __getitem__(self, rows: slice, /) -> Any: ...


A = TypeVar("A", bound=Answers)
#: Computes a forward: at once, or elsewhere.
Compute = Callable[[list[R]], A | Awaitable[A]]


@dataclass(eq=False)
class Piece(Generic[R]):
    """Rows of one caller that go through in one forward; `is_alone` once a forward with others has failed."""

    rows: Sequence[R]
    size_bytes: int
    future: asyncio.Future[Any]
    came: float = field(default_factory=perf_counter)
    began: float = 0.0
    ended: float = 0.0
    is_alone: bool = False


@dataclass(frozen=True)
class Part(Generic[A]):
    """The answers to one piece, and how long it waited and was computed."""

    answers: A
    rows: int
    queue_s: float
    infer_s: float


class Batcher(Generic[R, A]):
    """For one model, whose rows are all of one shape. `on_forward` is told the rows and the seconds of each
    forward."""

    def __init__(
        self,
        compute: Compute[R, A],
        *,
        max_rows: int = MAX_ROWS,
        on_forward: Callable[[int, float], None] = lambda _rows, _seconds: None,
    ) -> None:
        self._compute, self._max_rows, self._on_forward = compute, max_rows, on_forward
        self._pieces: deque[Piece[R]] = deque()
        self._row_s = 0.0
        self._is_awake = False
        self.waiting_rows = self.waiting_bytes = 0

    async def ask(self, rows: Sequence[R], size_bytes: int = 0) -> list[Part[A]]:
        """In order, one part for each `max_rows` of the rows. Raises Unavailable where too much waits, and
        what the forward raises; whoever leaves before their turn is not computed."""
        self._require_room(len(rows), size_bytes)
        loop, step = asyncio.get_running_loop(), self._max_rows
        pieces = [
            Piece(part, size_bytes * len(part) // len(rows), loop.create_future())
            for part in (rows[start : start + step] for start in range(0, len(rows), step))
        ]
        for piece in pieces:
            self._add(piece, self._pieces.append)
        if not self._is_awake:
            self._is_awake = True
            loop.call_soon(self._next)
        try:
            answers = [await piece.future for piece in pieces]
        except BaseException:
            for piece in pieces:
                piece.future.cancel()
            raise
        return [
            Part(answer, len(piece.rows), piece.began - piece.came, piece.ended - piece.began)
            for answer, piece in zip(answers, pieces, strict=True)
        ]

    @property
    def wait_s(self) -> float:
        """How long a row that comes now would wait, by what the latest took."""
        return self.waiting_rows * self._row_s

    def _require_room(self, rows: int, size_bytes: int) -> None:
        wait_s = self.wait_s
        is_full = (
            self.waiting_rows + rows > MAX_WAITING_ROWS or self.waiting_bytes + size_bytes > MAX_WAITING_BYTES
        )
        # A request of many rows is taken whole where nothing else waits: it can't come in parts.
        if wait_s > MAX_WAIT_S or (is_full and self._pieces):
            raise Unavailable(
                f"{self.waiting_rows} rows wait for this model already; send the same request again.",
                code="overloaded",
                retry_after_s=max(1, round(wait_s)),
            )

    def _next(self) -> None:
        """One forward with what waits; then another, after whoever else has something to do."""
        pieces = self._taken()
        if not pieces:
            self._is_awake = False
            return
        began = perf_counter()
        for piece in pieces:
            piece.began = began
        try:
            computed = self._compute([row for piece in pieces for row in piece.rows])
        except Exception as error:
            self._fail(pieces, error)
        else:
            if isinstance(computed, Awaitable):
                asyncio.ensure_future(computed).add_done_callback(lambda done: self._arrived(pieces, done))
                return
            self._answer(pieces, computed)
        asyncio.get_running_loop().call_soon(self._next)

    def _arrived(self, pieces: list[Piece[R]], done: "asyncio.Future[A]") -> None:
        if done.cancelled():
            self._fail(pieces, Unavailable("The service is stopping; ask another, or later."))
        elif (error := done.exception()) is not None:
            self._fail(pieces, error)
        else:
            self._answer(pieces, done.result())
        self._next()

    def _taken(self) -> list[Piece[R]]:
        """The oldest, and those behind it that go with it and for which there is room."""
        taken: list[Piece[R]] = []
        rows = 0
        while self._pieces:
            piece = self._pieces[0]
            if not piece.future.done():  # its caller has not left
                if taken and (piece.is_alone or rows + len(piece.rows) > self._max_rows):
                    break
                taken.append(piece)
                rows += len(piece.rows)
            self._pieces.popleft()
            self.waiting_rows -= len(piece.rows)
            self.waiting_bytes -= piece.size_bytes
            if piece.is_alone:
                break
        return taken

    def _answer(self, pieces: list[Piece[R]], answers: A) -> None:
        ended, start = perf_counter(), 0
        for piece in pieces:
            end = start + len(piece.rows)
            piece.ended = ended
            if not piece.future.done():
                piece.future.set_result(answers[start:end])
            start = end
        seconds = ended - pieces[0].began
        self._row_s += NEWEST_SHARE * (seconds / start - self._row_s)
        self._on_forward(start, seconds)

    def _fail(self, pieces: list[Piece[R]], error: BaseException) -> None:
        """Of several, each is computed again alone: what one of them sent fails nobody else's."""
        if len(pieces) > 1:
            for piece in reversed(pieces):
                piece.is_alone = True
                self._add(piece, self._pieces.appendleft)
        elif not pieces[0].future.done():
            pieces[0].future.set_exception(error)

    def _add(self, piece: Piece[R], add: Callable[[Piece[R]], None]) -> None:
        add(piece)
        self.waiting_rows += len(piece.rows)
        self.waiting_bytes += piece.size_bytes
