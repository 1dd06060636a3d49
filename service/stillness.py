"""What has not moved for how long, by our own monotonic clock: no two machines' clocks are compared."""

from collections.abc import Mapping
from typing import Generic, TypeVar

Name = TypeVar("Name")
State = TypeVar("State")


class Stillness(Generic[Name, State]):
    """Remembers the state of each name and since when it stands."""

    def __init__(self) -> None:
        self._since: dict[Name, tuple[State, float]] = {}

    def still(self, current: Mapping[Name, State], at: float, limit_s: float) -> list[tuple[Name, State]]:
        """Takes what is seen at `at` and gives what has stood for `limit_s`. Names that are gone are
        forgotten; one that is given is watched anew."""
        self._since = {
            name: known if (known := self._since.get(name)) and known[0] == state else (state, at)
            for name, state in current.items()
        }
        found = [(name, state) for name, (state, since) in self._since.items() if at - since >= limit_s]
        for name, _ in found:
            del self._since[name]
        return found
