"""What `jobs watch` draws of a job's numbers: which curves, and how large in this terminal."""

import math
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table

from modelyard.cli.curves import Curve, Point, plot
from modelyard.specs import Metric

LOSSES = ("train_loss", "val_loss")
RATE = "lr"

#: Lines of the losses and of the small curve of the learning rate; what else stands on the screen.
MOST_LINES, FEWEST_LINES, RATE_LINES, OTHER_LINES = 16, 6, 5, 4
#: Two plots stand side by side from here on, and one alone is no wider.
SIDE_BY_SIDE, WIDEST, NARROWEST = 110, 120, 40


class History:
    """The numbers of a job that still stand, by name and step."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._values: dict[str, dict[int, float]] = {}
        self.last_step = 0

    @property
    def names(self) -> list[str]:
        """Those worth asking for."""
        return list(dict.fromkeys([*LOSSES, RATE, self._monitor, "val_accuracy", "val_r2"]))

    def add(self, rows: Iterable[Metric]) -> None:
        for row in rows:
            self.last_step = max(self.last_step, row.step)
            if row.value is not None and math.isfinite(row.value):
                self._values.setdefault(row.name, {})[row.step] = row.value

    def rewind(self, step: int) -> None:
        """The job goes on from `step`: what came after it did not happen."""
        for values in self._values.values():
            for later in [known for known in values if known > step]:
                del values[later]
        self.last_step = min(self.last_step, step)

    def curve(self, name: str, style: str) -> Curve:
        points: list[Point] = sorted(self._values.get(name, {}).items())
        return Curve(name, points, style, has_marks=name.startswith("val_"))

    @property
    def second(self) -> str | None:
        """What is drawn beside the losses: the monitor, else how good the job is on validation."""
        wished = [self._monitor, "val_accuracy", "val_r2"]
        return next((name for name in wished if name not in LOSSES and self._values.get(name)), None)


def has_room(console: Console) -> bool:
    return console.height - OTHER_LINES >= FEWEST_LINES and console.width >= NARROWEST


def panels(history: History, console: Console) -> RenderableType:
    """Where there is room. Nothing until there is a number."""
    losses = [history.curve("train_loss", "cyan"), history.curve("val_loss", "yellow")]
    room = console.height - OTHER_LINES
    if not any(curve.points for curve in losses):
        return Group()
    second = [history.curve(history.second, "green")] if history.second else []
    rate = [history.curve(RATE, "magenta")]
    if second and console.width >= SIDE_BY_SIDE:
        upper = _side_by_side(losses, second, console.width, _lines(room - RATE_LINES))
        return Group(upper, *_small(rate, console.width, room - RATE_LINES))
    width = min(console.width, WIDEST) - 1
    if second and room - RATE_LINES >= 2 * FEWEST_LINES:
        lines = _lines((room - RATE_LINES) // 2)
        return Group(
            *plot(losses, width, lines), *plot(second, width, lines), *_small(rate, width, FEWEST_LINES)
        )
    return Group(*plot(losses, width, _lines(room - RATE_LINES)), *_small(rate, width, room - RATE_LINES))


def _side_by_side(left: list[Curve], right: list[Curve], width: int, lines: int) -> Table:
    table = Table.grid(padding=(0, 1))
    half = (width - 3) // 2
    table.add_row(Group(*plot(left, half, lines)), Group(*plot(right, half, lines)))
    return table


def _small(rate: list[Curve], width: int, room: int) -> list[RenderableType]:
    """Where it changes, and where there is room above it for more than itself."""
    changes = len({y for curve in rate for _, y in curve.points}) > 1
    return [*plot(rate, min(width - 1, WIDEST), RATE_LINES)] if changes and room >= FEWEST_LINES else []


def _lines(room: int) -> int:
    return max(FEWEST_LINES, min(MOST_LINES, room))
