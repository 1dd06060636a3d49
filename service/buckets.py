"""Token buckets by name: how often something may happen, in the long run and at once. No HTTP, no Redis."""

import time
from collections.abc import Callable
from dataclasses import dataclass

MAX_BUCKETS = 20_000


@dataclass
class _Bucket:
    tokens: float
    at: float
    taken: int = 0


class Buckets:
    """Each holds `burst` tokens and gets `per_s` a second. `taken` counts what nobody has collected yet."""

    def __init__(
        self,
        per_s: float,
        burst: float,
        *,
        limit: int = MAX_BUCKETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_s, self.burst = per_s, burst
        self._limit, self._clock = limit, clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str) -> float:
        """0 where a token was there, and it is gone now; else the seconds until the next one."""
        bucket = self._filled(name)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.per_s
        bucket.tokens -= 1
        bucket.taken += 1
        return 0.0

    def wait_s(self, name: str) -> float:
        """As `take`, and takes none."""
        return max(0.0, (1 - self._filled(name).tokens) / self.per_s)

    def collect(self) -> dict[str, int]:
        """What was taken since the last time, by name."""
        taken = {name: bucket.taken for name, bucket in self._buckets.items() if bucket.taken}
        for name in taken:
            self._buckets[name].taken = 0
        return taken

    def correct(self, name: str, tokens: float) -> None:
        """What there really is, before what was taken since it was collected."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.tokens, bucket.at = min(self.burst, tokens) - bucket.taken, self._clock()

    def _filled(self, name: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._limit:
                self._make_room(now)
            bucket = self._buckets[name] = _Bucket(self.burst, now)
            return bucket
        bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.at) * self.per_s)
        bucket.at = now
        return bucket

    def _make_room(self, now: float) -> None:
        """Full ones are as good as none; where there are too few of those, the older half goes."""
        full_after = self.burst / self.per_s
        kept = [(name, one) for name, one in self._buckets.items() if now - one.at < full_after]
        if len(kept) >= self._limit:
            kept = kept[self._limit // 2 :]
        self._buckets = dict(kept)
