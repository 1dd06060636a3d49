"""Requests over raw sockets: as many at once as one likes, or so many a second whatever becomes of them."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

#: Who has no answer by then leaves, as a user would.
PATIENCE_S = 15.0
#: Connections that one of us may hold: what is beyond is counted as not sent.
MAX_OPEN = 4000

#: The whole of a request, headers and body, ever another one.
Make = Callable[[], bytes]


@dataclass(frozen=True)
class Answer:
    status: int
    took_s: float
    has_retry_after: bool
    at: float


@dataclass
class Told:
    """`lost` got no answer: broken off, or not in time. `unsent` could not even ask."""

    answers: list[Answer] = field(default_factory=list)
    sent: int = 0
    lost: int = 0
    unsent: int = 0
    why: Counter[str] = field(default_factory=Counter)

    def of(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status in statuses]


async def ask(url: str, request: bytes, told: Told) -> Answer | None:
    """One request on a connection of its own."""
    place, began = urlsplit(url), monotonic()
    writer: asyncio.StreamWriter | None = None
    told.sent += 1
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.write(request)
            said = await reader.read(-1)
        head = said.partition(b"\r\n\r\n")[0].lower()
        answer = Answer(int(head.split()[1]), monotonic() - began, b"\r\nretry-after:" in head, monotonic())
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        told.lost += 1
        told.why[type(error).__name__] += 1
        return None
    finally:
        if writer is not None:
            writer.transport.abort() if not writer.transport.is_closing() else None
    told.answers.append(answer)
    return answer


async def closed(url: str, make: Make, connections: int, seconds: float) -> Told:
    """Each asks again as soon as it is answered: what the service can do."""
    told, until = Told(), monotonic() + seconds

    async def one() -> None:
        while monotonic() < until:
            await ask(url, make(), told)

    await asyncio.gather(*(one() for _ in range(connections)))
    return told


async def opened(url: str, make: Make, per_second: float, seconds: float) -> Told:
    """Poisson arrivals that wait for nobody's answer."""
    told, open_now = Told(), set[asyncio.Task[Answer | None]]()
    draw = random.Random(1)
    began = monotonic()
    due = began
    while due < began + seconds:
        due += draw.expovariate(per_second)
        await asyncio.sleep(max(0.0, due - monotonic()))
        if len(open_now) >= MAX_OPEN:
            told.unsent += 1
            continue
        task = asyncio.create_task(ask(url, make(), told))
        open_now.add(task)
        task.add_done_callback(open_now.discard)
    if open_now:
        await asyncio.wait(open_now)
    return told
