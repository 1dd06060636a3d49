"""The service's memory over time: that of the process that predicts, without the pages of files. Its helpers
share most of theirs with each other, and would hide a growth."""

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.training.memory import family, own_bytes

MB = 1e6
#: Growth is from the median of `WINDOW_S` after the first minute to that of the last `WINDOW_S`.
FROM_S, WINDOW_S = 60.0, 30.0
JUDGED_FROM_S = 180.0
GROWTH_BAR = 1.05


class NoService(Exception):
    """The stack has no service process."""


def service_pid(stack_pid: int) -> int:
    for pid in family(stack_pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if command[1:3] == [b"-m", b"service"]:
            return pid
    raise NoService(f"expected a process `python -m service` below {stack_pid}, there is none: read its logs")


@dataclass
class Curve:
    pid: int
    samples: list[tuple[float, int]] = field(default_factory=list)

    def add(self, at_s: float) -> None:
        self.samples.append((at_s, own_bytes(self.pid)))

    @property
    def last_mb(self) -> float:
        return self.samples[-1][1] / MB

    def median_mb(self, from_s: float, to_s: float) -> float:
        return statistics.median(held for at, held in self.samples if from_s <= at <= to_s) / MB

    def table(self) -> str:
        """A row a minute."""
        end = self.samples[-1][0]
        lines = ["| minute | the service's memory, MB: median | most |", "|---|---|---|"]
        for minute in range(int(end // 60) + 1):
            held = [held / MB for at, held in self.samples if minute * 60 <= at < (minute + 1) * 60]
            if held:
                lines.append(f"| {minute + 1} | {statistics.median(held):,.1f} | {max(held):,.1f} |")
        return "\n".join(lines)

    def growth_verdict(self) -> tuple[str, bool] | None:
        end = self.samples[-1][0]
        if end < JUDGED_FROM_S:
            return None
        before, after = self.median_mb(FROM_S, FROM_S + WINDOW_S), self.median_mb(end - WINDOW_S, end)
        ratio = after / before
        said = f"memory after the first minute {before:,.1f} MB, at the end {after:,.1f} MB"
        return f"{said}, {ratio:.3f} times, bar at most {GROWTH_BAR:g}", ratio <= GROWTH_BAR
