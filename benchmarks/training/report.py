"""The table of a case, as Markdown for docs/benchmarks.md, and what became of its bars."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.training.cases import Bar, Case, Precision
from benchmarks.training.results import Result

#: The peak memory with twice the images may be so many times that with the images.
GROWTH_BAR = 1.1


@dataclass(frozen=True)
class Side:
    """Who trains, in which precision, and how its row is called."""

    kind: str
    precision: Precision
    label: str


@dataclass
class Runs:
    """The results of each side, in the order of the rounds."""

    case: Case
    of: dict[Side, list[Result]] = field(default_factory=dict)

    def add(self, side: Side, result: Result) -> None:
        self.of.setdefault(side, []).append(result)

    def median(self, side: Side, value: Callable[[Result], float]) -> float:
        return statistics.median(value(result) for result in self.of[side])

    def find(self, kind: str, precision: Precision) -> Side | None:
        return next((s for s in self.of if s.kind == kind and s.precision == precision), None)


def training(result: Result) -> float:
    return result.samples_per_s


def whole(result: Result) -> float:
    return result.whole_s


def peak(result: Result) -> float:
    return result.peak_bytes


def table(runs: Runs) -> str:
    notes = runs.find("notes", "fp32")
    rounds = max(len(results) for results in runs.of.values())
    lines = [
        f"| {runs.case.title} | training samples/s: median of {rounds} | to the notes' loop "
        "| whole, s: median | to the notes' loop | test accuracy | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, results in runs.of.items():
        rates = ", ".join(f"{result.samples_per_s:,.0f}" for result in results)
        wholes = ", ".join(f"{result.whole_s:.1f}" for result in results)
        lines.append(
            f"| {side.label} | **{runs.median(side, training):,.0f}** ({rates}) "
            f"| {_quotient(runs, side, notes, 'training')} | **{runs.median(side, whole):.1f}** ({wholes}) "
            f"| {_quotient(runs, side, notes, 'whole')} "
            f"| {runs.median(side, lambda result: result.test_accuracy):.3f} "
            f"| {runs.median(side, peak) / 1e6:,.0f} |"
        )
    return "\n".join(lines)


def bars(runs: Runs, has_bf16: bool) -> list[tuple[str, bool]]:
    """A sentence for each bar, and whether it holds. Without the notes' loop there is nothing to hold
    against, and without bf16 in the processor `auto` is fp32."""
    notes = runs.find("notes", "fp32")
    found: list[tuple[str, bool]] = []
    for bar in runs.case.bars:
        ours = runs.find("service", bar.precision)
        if ours is None or notes is None or (bar.precision == "auto" and not has_bf16):
            continue
        ratio = quotient(runs, ours, notes, bar.what)
        found.append(_judged(f"{runs.case.name}, {bar.what}, {bar.precision}", ratio, bar))
    for side, results in runs.of.items():
        least = min(result.test_accuracy for result in results)
        if least < runs.case.least_accuracy:
            told = f"{runs.case.name}, {side.label}: test accuracy {least:.3f}"
            found.append((f"{told}, expected {runs.case.least_accuracy}: it did not train", False))
    return found


def growth(runs: Runs, doubled: Runs) -> tuple[str, bool] | None:
    """What twice the images cost the service in memory."""
    ours, twice = runs.find("service", "fp32"), doubled.find("service", "fp32")
    if ours is None or twice is None:
        return None
    before, after = runs.median(ours, peak), doubled.median(twice, peak)
    ratio = after / before
    said = (
        f"{runs.case.name}, peak memory with twice the images: {before / 1e6:,.0f} -> {after / 1e6:,.0f} MB"
    )
    is_held = ratio <= GROWTH_BAR
    return f"{said}, {ratio:.2f} times, bar {GROWTH_BAR}: {'held' if is_held else 'missed'}", is_held


def quotient(runs: Runs, side: Side, notes: Side, what: str) -> float:
    """How many times as fast as the notes' loop, by the medians."""
    if what == "training":
        return runs.median(side, training) / runs.median(notes, training)
    return runs.median(notes, whole) / runs.median(side, whole)


def _quotient(runs: Runs, side: Side, notes: Side | None, what: str) -> str:
    return "" if notes is None else f"{quotient(runs, side, notes, what):.2f}"


def _judged(what: str, ratio: float, bar: Bar) -> tuple[str, bool]:
    is_held = ratio >= bar.at_least
    return (
        f"{what}: {ratio:.2f} times the notes' loop, bar {bar.at_least}: {'held' if is_held else 'missed'}",
        is_held,
    )
