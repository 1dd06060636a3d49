"""Stories: what each call of the client does, told once as a generator that asks for effects.

A story yields an effect (send this, sleep, read the next event) and is sent its outcome; a runner
performs the effects, blocking or awaiting. So waiting, retrying, paging and reconnecting are written
once for `Client` and `AsyncClient`. This module knows no HTTP library.
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Body(Protocol):
    """Bytes to upload, in pieces. `size_bytes` is None where it isn't known beforehand."""

    size_bytes: int | None
    is_repeatable: bool

    def chunks(self) -> Iterator[bytes]:
        """From the start at every call; only the first call counts where `is_repeatable` is false."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request.

    `held_s`: so long may the service hold its answer, or stay silent in a stream, on top of the client's
    timeout. `is_repeatable`: to send it twice does no harm.
    """

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Body = b""
    held_s: float = 0
    is_repeatable: bool = False


@dataclass(frozen=True)
class Reply:
    """Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Receive:
    """Send `call` and give the body of a 2xx piece by piece to `write`, after one `begin`; the Reply's
    content is then empty."""

    call: Call
    begin: Callable[[], object]
    write: Callable[[bytes], object]


@dataclass(frozen=True)
class Listen:
    """Open a stream of server-sent events in place of the one that was open. The outcome is a Reply."""

    call: Call


@dataclass(frozen=True)
class NextMessage:
    """The outcome is the next `Message`, or None where the stream ended."""


@dataclass(frozen=True)
class Message:
    """One server-sent event. `id` is the last one seen, as the standard has it; "" before the first."""

    event: str
    id: str
    data: str


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class InThread:
    """Work on files, off the event loop where there is one. The outcome is what `work` returns."""

    work: Callable[[], object]


@dataclass(frozen=True)
class Item(Generic[T_co]):
    """Not for the runner: a value for who iterates."""

    value: T_co


Effect: TypeAlias = Call | Receive | Listen | NextMessage | Sleep | InThread
Story: TypeAlias = Generator[Effect, Any, T]
Stream: TypeAlias = Generator[Effect | Item[T], Any, None]


class SyncRunner(Protocol):
    max_retries: int

    def run(self, story: Story[T]) -> T: ...
    def iterate(self, stream: Stream[T]) -> Iterator[T]: ...


class AsyncRunner(Protocol):
    max_retries: int

    async def run(self, story: Story[T]) -> T: ...
    def iterate(self, stream: Stream[T]) -> AsyncIterator[T]: ...


class Telling(Generic[T]):
    """A story being told: `effect` is what it asks for now, None once it has ended."""

    effect: Effect | Item[Any] | None

    def __init__(self, story: Generator[Effect | Item[Any], Any, T]) -> None:
        self._story = story
        self._result: T
        self.answer(None)

    def answer(self, outcome: object) -> None:
        try:
            self.effect = self._story.send(outcome)
        except StopIteration as end:
            self.effect, self._result = None, end.value

    def fail(self, error: Exception) -> None:
        """Raises `error` where the story stands; what the story doesn't catch is raised here."""
        try:
            self.effect = self._story.throw(error)
        except StopIteration as end:
            self.effect, self._result = None, end.value

    def result(self) -> T:
        return self._result

    def close(self) -> None:
        """Runs the story's `finally` blocks, where it has not ended."""
        self._story.close()
