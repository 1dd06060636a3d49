"""Curves in characters: braille cells of two by four dots, with the range beside them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from modelyard.cli.session import number

#: Dots of a cell, across and down, and which bit of the character each is (Unicode, Braille Patterns).
ACROSS, DOWN = 2, 4
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BLANK = 0x2800
MARK = "o"
CELLS_A_MARK = 4

#: Columns of the range at the left, and those of the frame.
LABEL, FRAME = 9, 1

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """`points` by rising x, all finite. One that `has_marks` shows them, where they are few enough for the
    room: it is told apart without colours."""

    name: str
    points: Sequence[Point]
    style: str = ""
    has_marks: bool = False


def plot(curves: Sequence[Curve], width: int, height: int) -> list[Text]:
    """`height` lines of `width` characters: a legend, the curves, and the range of x. At least four lines."""
    drawn = [curve for curve in curves if curve.points]
    canvas = Canvas(max(1, width - LABEL - FRAME), max(1, height - 2))
    low, high = _range([y for curve in drawn for _, y in curve.points])
    first, last = _range([x for curve in drawn for x, _ in curve.points])
    drawn = [replace(one, has_marks=one.has_marks and is_sparse(one, canvas.width)) for one in drawn]
    for curve in drawn:
        dots = [canvas.dot((x - first) / (last - first), (y - low) / (high - low)) for x, y in curve.points]
        canvas.draw(dots, curve)
    return [
        _fitted(_legend(drawn), width),
        *(_row(canvas, place, low, high) for place in range(canvas.height)),
        _fitted(_axis(first, last, canvas.width), width),
    ]


class Canvas:
    """`width` by `height` cells. The curve that is drawn last owns a cell."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._bits = [[0] * width for _ in range(height)]
        self._styles = [[""] * width for _ in range(height)]
        self._marks = [[False] * width for _ in range(height)]

    def dot(self, right: float, up: float) -> tuple[int, int]:
        """The dot at a part of the width and of the height, both 0..1."""
        columns, rows = self.width * ACROSS - 1, self.height * DOWN - 1
        return round(right * columns), rows - round(up * rows)

    def draw(self, dots: Sequence[tuple[int, int]], curve: Curve) -> None:
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            for column, row in line(start, end):
                x, y = column // ACROSS, row // DOWN
                self._bits[y][x] |= DOTS[row % DOWN][column % ACROSS]
                self._styles[y][x] = curve.style
        if curve.has_marks:
            for column, row in dots:
                self._marks[row // DOWN][column // ACROSS] = True
                self._styles[row // DOWN][column // ACROSS] = curve.style

    def row(self, place: int) -> Text:
        text = Text(no_wrap=True)
        cells = zip(self._bits[place], self._styles[place], self._marks[place], strict=True)
        for bits, style, is_marked in cells:
            text.append(MARK if is_marked else chr(BLANK + bits) if bits else " ", style)
        return text


def is_sparse(curve: Curve, width: int) -> bool:
    return len(curve.points) * CELLS_A_MARK <= width


def line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Every dot of the straight line between two, both with it."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        part = step / steps
        yield round(start[0] + (end[0] - start[0]) * part), round(start[1] + (end[1] - start[1]) * part)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Never empty: one value stands in its middle."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high > low:
        return low, high
    around = abs(low) / 2 or 0.5
    return low - around, high + around


def _row(canvas: Canvas, place: int, low: float, high: float) -> Text:
    label = number(high) if place == 0 else number(low) if place == canvas.height - 1 else ""
    return Text.assemble((label.rjust(LABEL), "dim"), ("│", "dim"), canvas.row(place), no_wrap=True)


def _legend(curves: Sequence[Curve]) -> Text:
    text = Text(" " * (LABEL + FRAME), no_wrap=True)
    for curve in curves:
        sign = MARK if curve.has_marks else "─"
        text.append(f"{sign} {curve.name} {number(curve.points[-1][1])}   ", curve.style)
    return text


def _axis(first: float, last: float, width: int) -> Text:
    left, right = f"{math.floor(first):,}", f"{math.ceil(last):,}"
    gap = " " * max(1, width - len(left) - len(right))
    return Text(" " * (LABEL + FRAME) + left + gap + right, "dim", no_wrap=True)


def _fitted(text: Text, width: int) -> Text:
    text.truncate(width)
    return text
