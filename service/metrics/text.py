"""Prometheus' text format, version 0.0.4: families of samples in, bytes out.

Not by prometheus_client: it ends the name of every counter in `_total`, and Triton's do not; and it takes
several times as long, in the process that predicts. Its parser holds this module to the format in the tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from service.metrics.histogram import BOUNDS_S, Histogram

#: The framework adds the charset by itself.
MEDIA_TYPE = "text/plain; version=0.0.4"
CONTENT_TYPE = f"{MEDIA_TYPE}; charset=utf-8"

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_BOUNDS = (*map(repr, BOUNDS_S), "+Inf")


@dataclass(frozen=True)
class Family:
    """All series of one name. Of each its labels, as `labels` writes them, and its value."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[tuple[str, int | float | Histogram]] = field(default_factory=list)

    def add(self, value: int | float | Histogram, labels: str = "") -> None:
        """A histogram is copied: what is added to it later is not in this page."""
        self.samples.append((labels, value.copy() if isinstance(value, Histogram) else value))


def labels(**values: str) -> str:
    """As they stand between the braces; more may be joined to them with a comma."""
    return ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in values.items())


def render(families: Iterable[Family]) -> bytes:
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
        for named, value in family.samples:
            if isinstance(value, Histogram):
                lines += _histogram(family.name, named, value)
            else:
                lines.append(f"{family.name}{_braced(named)} {value}")
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, named: str, histogram: Histogram) -> list[str]:
    """Each bucket with those below it; in seconds."""
    before = f"{named}," if named else ""
    counts = list(accumulate(histogram.buckets))
    lines = [
        f'{name}_bucket{{{before}le="{bound}"}} {count}' for bound, count in zip(_BOUNDS, counts, strict=True)
    ]
    lines.append(f"{name}_count{_braced(named)} {counts[-1]}")
    lines.append(f"{name}_sum{_braced(named)} {histogram.ns / 1e9}")
    return lines


def _braced(named: str) -> str:
    return f"{{{named}}}" if named else ""
