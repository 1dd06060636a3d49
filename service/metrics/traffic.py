"""What was asked and answered over HTTP since this process started. For the event loop alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.metrics.histogram import Histogram

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
#: Whatever else a client writes in the place of a method: each word would be a series of its own.
OTHER = "other"


#: Method, route, status. The route is a template, or `-` where none matched; the status is 0 where the client
#: left before there was one.
Answered = tuple[str, str, int]


class Traffic:
    def __init__(self) -> None:
        self.answered: dict[Answered, Histogram] = {}
        self.event_streams = 0

    def add(self, method: str, route: str, status: int, ns: int) -> None:
        """A request that has ended, and how long it took from its headers to the end of its answer."""
        key = method if method in METHODS else OTHER, route, status
        found = self.answered.get(key)
        if found is None:
            found = self.answered[key] = Histogram()
        found.add(ns)

    @contextmanager
    def event_stream(self) -> Iterator[None]:
        """Around one that is open."""
        self.event_streams += 1
        try:
            yield
        finally:
            self.event_streams -= 1
