"""Rows of many callers in one forward: pure timing, no torch, no HTTP.

Nobody waits for a clock: a forward begins once nobody new has come for two turns of the event loop, which
takes microseconds, or as there are enough for a full batch. While one runs elsewhere, whoever comes waits for
the next, which takes all that there is room for. So a batch is as large as the load makes it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from core.errors import Overloaded, Unavailable

#: Rows in one forward: more bring little on a CPU, and make those wait that came first.
MAX_ROWS = 32
#: What may wait for one model.
MAX_WAITING_ROWS = 4096
MAX_WAITING_BYTES = 256 * 1024 * 1024
#: Whoever would wait longer is refused as they come; and so soon all is as before once too many have stopped.
MAX_WAIT_S = 3.0
#: Of the event loop, in which nobody new came: in the first a body may be read that is asked in the second.
QUIET_TURNS = 2
#: How much the latest forward counts for in the estimate of what a row takes.
NEWEST_SHARE = 0.2

R = TypeVar("R")


class Answers(Protocol):
    """Of the rows of one forward, in order; a tensor is one."""

    def __getitem__(self, rows: slice, /) -> Any: ...


A = TypeVar("A", bound=Answers)


@dataclass(frozen=True)
class Computed(Generic[A]):
    """A forward's answers, and how long it took by itself: what it waited for is not in it. `transform_s` of
    it went by before the net began."""

    answers: A
    seconds: float
    transform_s: float = 0.0


#: Computes a forward: at once, or elsewhere.
Compute = Callable[[list[R]], Computed[A] | Awaitable[Computed[A]]]
#: Rows, seconds, `transform_s`.
OnForward = Callable[[int, float, float], None]


@dataclass(eq=False, slots=True)
class Piece(Generic[R]):
    """Rows of one caller that go through in one forward; `is_first` of those of a request, `is_alone` once a
    forward with others has failed. It `is_waiting` until its forward begins or its caller leaves."""

    rows: Sequence[R]
    size_bytes: int
    future: asyncio.Future[Any]
    is_first: bool
    came: float = field(default_factory=perf_counter)
    is_alone: bool = False
    is_waiting: bool = True


class Part(NamedTuple, Generic[A]):
    """The answers to one piece, and how long it waited and was computed; `transform_s` is a part of
    `infer_s`."""

    answers: A
    rows: int
    queue_s: float
    infer_s: float
    transform_s: float


class Batcher(Generic[R, A]):
    """For one model, whose rows are all of one shape. `on_forward` is told of each forward how many rows and
    how many seconds it took, and how many of these before the net began."""

    def __init__(
        self,
        compute: Compute[R, A],
        *,
        max_rows: int = MAX_ROWS,
        on_forward: OnForward = lambda _rows, _seconds, _transform_s: None,
    ) -> None:
        self._compute, self._max_rows, self._on_forward = compute, max_rows, on_forward
        self._pieces: deque[Piece[R]] = deque()
        self._forward_s = 0.0
        self._is_awake = False
        self._came = 0
        self._reading_rows = 0
        self.waiting_rows = self.waiting_bytes = self.in_flight_rows = 0

    async def ask(self, rows: Sequence[R], size_bytes: int = 0) -> list[Part[A]]:
        """In order, one part for each `max_rows` of the rows. Raises Overloaded where too much waits, and
        what the forward raises; whoever leaves before their turn is not computed."""
        self._require_room()
        loop, step = asyncio.get_running_loop(), self._max_rows
        pieces = [
            Piece(part, size_bytes * len(part) // len(rows), loop.create_future(), start == 0)
            for start, part in ((start, rows[start : start + step]) for start in range(0, len(rows), step))
        ]
        for piece in pieces:
            self._add(piece, self._pieces.append)
        if not self._is_awake:
            self._is_awake = True
            loop.call_soon(self._next)
        try:
            return [await piece.future for piece in pieces]
        except BaseException:
            for piece in pieces:
                self._leave(piece)
            raise

    @contextmanager
    def reading(self, num_rows: int) -> Iterator[None]:
        """Around rows that are being made of what came, elsewhere: they count among those that wait. Raises
        Overloaded before anything is done for who would be refused afterwards."""
        self._require_room()
        self._reading_rows += num_rows
        try:
            yield
        finally:
            self._reading_rows -= num_rows

    def lets_wait(self, num_rows: int) -> bool:
        """Whether so many rows that come now take more than the next forward, which begins soon."""
        return self.in_flight_rows > 0 or self.waiting_rows + num_rows > self._max_rows

    @property
    def wait_s(self) -> float:
        """How long a row that comes now would wait, by what the latest forwards took."""
        rows = self.waiting_rows + self._reading_rows
        return math.ceil(rows / self._max_rows) * self._forward_s

    @property
    def waiting_requests(self) -> int:
        """Those of which nothing has been computed. Looks at all that waits."""
        return sum(piece.is_first and not piece.future.done() for piece in self._pieces)

    def _require_room(self) -> None:
        """What waits is bounded before a request is added: a large one is taken as well as a small."""
        wait_s = self.wait_s
        rows = self.waiting_rows + self._reading_rows
        is_full = rows >= MAX_WAITING_ROWS or self.waiting_bytes >= MAX_WAITING_BYTES
        if is_full or wait_s > MAX_WAIT_S:
            raise Overloaded(
                f"{rows} rows wait for this model already; send the same request again.",
                retry_after_s=max(1, round(wait_s)),
            )

    def _next(self, came: int = -1, quiet_turns: int = 0) -> None:
        """One forward with what waits; then another, after whoever else has something to do. `came` is how
        many had come in all a turn ago."""
        if self._pieces and self.waiting_rows < self._max_rows:
            quiet_turns = quiet_turns + 1 if came == self._came else 0
            if quiet_turns < QUIET_TURNS:
                asyncio.get_running_loop().call_soon(self._next, self._came, quiet_turns)
                return
        pieces = self._taken()
        if not pieces:
            self._is_awake = False
            return
        is_elsewhere = False
        rows = [row for piece in pieces for row in piece.rows]
        self.in_flight_rows = len(rows)
        try:
            computed = self._compute(rows)
            if isinstance(computed, Computed):
                self._answer(pieces, computed)
            else:
                is_elsewhere = True
                asyncio.ensure_future(computed).add_done_callback(lambda done: self._arrived(pieces, done))
        except Exception as error:
            self._fail(pieces, error)
        finally:
            if not is_elsewhere:
                self.in_flight_rows = 0
                asyncio.get_running_loop().call_soon(self._next)

    def _arrived(self, pieces: list[Piece[R]], done: "asyncio.Future[Computed[A]]") -> None:
        self.in_flight_rows = 0
        try:
            if done.cancelled():
                self._fail(pieces, Unavailable("The service is stopping; ask another, or later."))
            elif (error := done.exception()) is not None:
                self._fail(pieces, error)
            else:
                self._answer(pieces, done.result())
        finally:
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
            self._count_out(piece)
            if taken and taken[-1].is_alone:
                break
        return taken

    def _answer(self, pieces: list[Piece[R]], computed: Computed[A]) -> None:
        ended, start = perf_counter(), 0
        for piece in pieces:
            end = start + len(piece.rows)
            if not piece.future.done():
                waited_s = max(0.0, ended - piece.came - computed.seconds)
                answers = computed.answers[start:end]
                part = Part(answers, end - start, waited_s, computed.seconds, computed.transform_s)
                piece.future.set_result(part)
            start = end
        self._forward_s += NEWEST_SHARE * (computed.seconds - self._forward_s)
        self._on_forward(start, computed.seconds, computed.transform_s)

    def _fail(self, pieces: list[Piece[R]], error: BaseException) -> None:
        """Of several, each is computed again alone: what one of them sent fails nobody else's. Where there is
        no room, or what computed has gone, nobody's rows are to blame, or they must not be tried again."""
        if len(pieces) > 1 and not isinstance(error, Unavailable):
            for piece in reversed(pieces):
                piece.is_alone = True
                self._add(piece, self._pieces.appendleft)
            return
        if isinstance(error, StopIteration):  # a future refuses to hold it
            error = RuntimeError(f"the net stopped: {error!r}")
        for piece in pieces:
            if not piece.future.done():
                piece.future.set_exception(error)

    def _leave(self, piece: Piece[R]) -> None:
        """Those who left take no room from those who come; the queue passes over what is left of them."""
        piece.future.cancel()
        if piece.is_waiting:
            self._count_out(piece)
            piece.rows = ()

    def _count_out(self, piece: Piece[R]) -> None:
        if piece.is_waiting:
            piece.is_waiting = False
            self.waiting_rows -= len(piece.rows)
            self.waiting_bytes -= piece.size_bytes

    def _add(self, piece: Piece[R], add: Callable[[Piece[R]], None]) -> None:
        add(piece)
        self._came += 1
        piece.is_waiting = True
        self.waiting_rows += len(piece.rows)
        self.waiting_bytes += piece.size_bytes
