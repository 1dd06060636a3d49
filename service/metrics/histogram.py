"""How long things took, counted by how long. Adding to one takes a fifth of a microsecond."""

from bisect import bisect_left
from dataclasses import dataclass, field

#: From what a stage of a small net takes to what nobody waits for.
_BOUNDS_NS = (
    *(10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    *(1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000),
    *(100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000),
)
BOUNDS_S = tuple(bound / 1e9 for bound in _BOUNDS_NS)


@dataclass
class Histogram:
    """`buckets[n]` are those that took at most `BOUNDS_S[n]` and longer than the bound before; the last are
    those beyond all bounds."""

    ns: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_NS) + 1))

    def add(self, ns: int) -> None:
        self.ns += ns
        self.buckets[bisect_left(_BOUNDS_NS, ns)] += 1

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def copy(self) -> "Histogram":
        return Histogram(self.ns, self.buckets.copy())

    def include(self, other: "Histogram") -> None:
        self.ns += other.ns
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
