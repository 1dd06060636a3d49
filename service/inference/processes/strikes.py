"""Which versions have ended the processes that computed them, and may not do so for ever."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from math import ceil

from core.errors import Unavailable

#: Deaths within so many seconds; then the version is held back for as long.
MAX_STRIKES = 3
WINDOW_S = 600.0

#: Of more versions, those that were struck longest ago are as if they never had been.
MAX_VERSIONS = 1024


class Strikes:
    """Not for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._struck: OrderedDict[str, deque[float]] = OrderedDict()
        self._held: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def add(self, version_id: str, name: str, why: str, *, is_last: bool = False) -> bool:
        """Whether the version is held back from now on: at once where `is_last`."""
        now = self._clock()
        struck = self._struck.setdefault(version_id, deque(maxlen=MAX_STRIKES))
        self._struck.move_to_end(version_id)
        struck.append(now)
        is_held = is_last or (len(struck) == MAX_STRIKES and now - struck[0] <= WINDOW_S)
        if is_held:
            self._held[version_id] = now + WINDOW_S, f"{name} {why}"
            del self._struck[version_id]
        for known in (self._struck, self._held):
            while len(known) > MAX_VERSIONS:
                known.popitem(last=False)
        return is_held

    def has(self, version_id: str) -> bool:
        """Whether it may have ended a process lately."""
        struck = self._struck.get(version_id)
        return struck is not None and self._clock() - struck[-1] <= WINDOW_S

    def require_free(self, version_id: str) -> None:
        """Raises Unavailable with the time until it is tried again."""
        if version_id not in self._held:
            return
        until, why = self._held[version_id]
        left_s = until - self._clock()
        if left_s > 0:
            raise Unavailable(
                f"{why}; it is not computed for another {ceil(left_s)} s. Look for the reason in the "
                "service's log; other versions are answered.",
                code="version_held_back",
                retry_after_s=ceil(left_s),
            )
        del self._held[version_id]
