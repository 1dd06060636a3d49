"""The tables, as Markdown for docs/benchmarks.md, and what became of the bars."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.serving.results import Forward, Measured
from benchmarks.serving.sides import LABELS, SERVERS, Kind

OVER_SERVERS = 3.0
OVER_LITESTAR = 1.8
OF_FASTAPI_MEDIAN = 0.6
OVER_JSON = 1.3
OF_FORWARD = 0.9

FEW, MANY = 1, 32
CONNECTIONS = (FEW, MANY)


@dataclass(frozen=True)
class Verdict:
    sentence: str
    is_held: bool


@dataclass
class Races:
    """Of the MLP: what each side did under each load, in the order of the rounds; `ways` is how a peer was
    run where that is not as it comes."""

    of: dict[tuple[Kind, int], list[Measured]] = field(default_factory=dict)
    ways: dict[Kind, str] = field(default_factory=dict)

    def add(self, kind: Kind, connections: int, measured: Measured) -> None:
        self.of.setdefault((kind, connections), []).append(measured)

    def has(self, *kinds: Kind) -> bool:
        return all((kind, MANY) in self.of for kind in kinds)

    def median(self, kind: Kind, connections: int, value: Callable[[Measured], float]) -> float:
        return statistics.median(map(value, self.of[kind, connections]))

    def rate(self, kind: Kind) -> float:
        return self.median(kind, MANY, rate)

    def kinds(self) -> list[Kind]:
        return [*dict.fromkeys(kind for kind, _ in self.of)]


@dataclass
class Costs:
    """Of one net: the service under many connections and the net alone, in the order of the rounds. `way` is
    the key of the forward that it is held against."""

    title: str
    way: str
    served: list[Measured] = field(default_factory=list)
    alone: list[Forward] = field(default_factory=list)

    @property
    def served_rate(self) -> float:
        return statistics.median(map(rate, self.served))

    @property
    def alone_rate(self) -> float:
        return self.best(self.way)

    def best(self, way: str) -> float:
        return statistics.median(forward.best(way) for forward in self.alone)

    @property
    def best_size(self) -> int:
        """The batch size that was best most often."""
        return statistics.mode(max(f.images_per_s[self.way].items(), key=_second)[0] for f in self.alone)


def rate(measured: Measured) -> float:
    return measured.requests_per_s


def p50(measured: Measured) -> float:
    return measured.p50_ms


def p99(measured: Measured) -> float:
    return measured.p99_ms


def race_table(races: Races, title: str) -> str:
    rounds = max(map(len, races.of.values()))
    lines = [
        f"| {title} | requests/s, {MANY} connections: median of {rounds} | p50, ms | p99, ms "
        f"| p50 at {FEW} connection, ms | p99 at {FEW}, ms |",
        "|---|---|---|---|---|---|",
    ]
    for kind in races.kinds():
        rates = ", ".join(f"{one.requests_per_s:,.0f}" for one in races.of[kind, MANY])
        way = f" ({races.ways[kind]})" if kind in races.ways else ""
        cells = [
            f"{races.median(kind, connections, value):.2f}"
            for connections in (MANY, FEW)
            for value in (p50, p99)
        ]
        lines.append(f"| {LABELS[kind]}{way} | **{races.rate(kind):,.0f}** ({rates}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(costs: list[Costs]) -> str:
    lines = [
        f"| net, {MANY} connections | images/s served: median | the net alone: median of the best batch size "
        "| served, of that | the net alone in channels_last |",
        "|---|---|---|---|---|",
    ]
    for cost in costs:
        served = ", ".join(f"{one.requests_per_s:,.1f}" for one in cost.served)
        other = "forward, channels_last"
        shown = f"{cost.best(other):,.1f}" if cost.way == "forward" else ""
        lines.append(
            f"| {cost.title} | **{cost.served_rate:,.1f}** ({served}) "
            f"| {cost.alone_rate:,.1f} ({cost.way}, batches of {cost.best_size}) "
            f"| {cost.served_rate / cost.alone_rate:.2f} | {shown} |"
        )
    return "\n".join(lines)


def race_verdicts(races: Races) -> list[Verdict]:
    """A bar is judged where all sides that it names were measured."""
    verdicts = []
    if races.has("ours", *SERVERS):
        best = max(SERVERS, key=races.rate)
        ratio = races.rate("ours") / races.rate(best)
        verdicts.append(
            at_least(f"requests/s to those of {LABELS[best]}, the best server", ratio, OVER_SERVERS)
        )
    if races.has("ours", "litestar"):
        ratio = races.rate("ours") / races.rate("litestar")
        verdicts.append(at_least(f"requests/s to those of {LABELS['litestar']}", ratio, OVER_LITESTAR))
    if races.has("ours", "litestar", *SERVERS):
        quickest = min((*SERVERS, "litestar"), key=lambda kind: races.median(kind, MANY, p99))
        ours, theirs = (races.median(kind, MANY, p99) for kind in ("ours", quickest))
        what = (
            f"p99 at {MANY} connections, {ours:.1f} ms, to the lowest, {LABELS[quickest]}'s {theirs:.1f} ms"
        )
        verdicts.append(at_most(what, ours / theirs, 1.0))
    if races.has("ours", "fastapi"):
        ratio = races.median("ours", FEW, p50) / races.median("fastapi", FEW, p50)
        verdicts.append(
            at_most(f"median at one connection to {LABELS['fastapi']}'s", ratio, OF_FASTAPI_MEDIAN)
        )
    if races.has("ours", "ours-v2"):
        ratio = races.rate("ours-v2") / races.rate("ours")
        verdicts.append(at_least("requests/s of the V2 binary body to our JSON", ratio, OVER_JSON))
    return verdicts


def cost_verdict(cost: Costs) -> Verdict:
    what = f"{cost.title}, images/s to {cost.way} alone"
    return at_least(what, cost.served_rate / cost.alone_rate, OF_FORWARD)


def at_least(what: str, ratio: float, bar: float) -> Verdict:
    return _judged(what, ratio, f"at least {bar:g}", ratio >= bar)


def at_most(what: str, ratio: float, bar: float) -> Verdict:
    return _judged(what, ratio, f"at most {bar:g}", ratio <= bar)


def _judged(what: str, ratio: float, bar: str, is_held: bool) -> Verdict:
    return Verdict(f"{what}: {ratio:.2f} times, bar {bar}: {'held' if is_held else 'missed'}", is_held)


def _second(pair: tuple[int, float]) -> float:
    return pair[1]
