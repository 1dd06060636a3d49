"""What a plan costs: its round trip, and what predictions of another model feel of it.

    python -m benchmarks.plans [spec.json …]

Starts the embedded stack in a temporary folder, trains one tiny model on scikit-learn's digits, then prints
the round trip of each spec (default: the tiny model's own), and the latencies of a loaded predict loop alone
and beside plans asked for back to back. Each loop is a process of its own on its own socket. Three rounds;
the figure is their median. Exits 1 where a bar is missed.

A spec that names another dataset than `digits` is planned on `digits`.
"""

import http.client
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.job_latency import SPEC
from deploy.embed import running_stack
from examples.digits.make_digits import write_zip
from modelyard import Client

PLANS = 100
PREDICTIONS = 3000
ROUNDS = 3
PLAN_BAR_MS = 300
SLOWDOWN_BAR = 1.5

console = Console()


@dataclass(frozen=True)
class Route:
    """One request that is made again and again."""

    url: str
    key: str
    path: str
    body: bytes


def main(paths: list[str]) -> int:
    specs = {Path(path).stem: json.loads(Path(path).read_text()) for path in paths} or {"tiny": SPEC}
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        write_zip(Path(folder) / "digits.zip")
        with running_stack(Path(folder) / "home") as stack, Client(stack.url, stack.key) as client:
            client.datasets.push("digits", Path(folder) / "digits.zip")
            client.jobs.submit(SPEC).wait()
            row = client.datasets.samples("digits", "test", 1).items[0].values["image"]
            instances = json.dumps({"instances": [row]}).encode()
            predict = Route(stack.url, stack.key, f"/v1/models/{SPEC['name']}/predict", instances)
            plans = {name: plan_route(stack.url, stack.key, spec) for name, spec in specs.items()}
            missed = report_plans({name: round_trips(route) for name, route in plans.items()})
            for name, route in plans.items():
                missed += report_slowdown(name, [slowdown(predict, route) for _ in range(ROUNDS)])
    return 1 if missed else 0


def plan_route(url: str, key: str, spec: dict[str, Any]) -> Route:
    return Route(url, key, "/v1/plans", json.dumps(spec | {"dataset": "digits"}).encode())


def round_trips(route: Route) -> list[float]:
    """Milliseconds each, on one connection; the first is not counted."""
    return asked(route, PLANS + 1)[1:]


@dataclass(frozen=True)
class Slowdown:
    """Milliseconds of predictions alone and beside plans, and how many plans were answered meanwhile."""

    alone: list[float]
    beside: list[float]
    plans_per_s: float


def slowdown(predict: Route, plan: Route) -> Slowdown:
    alone = in_own_process(predict)
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("q", 0)
    planning = context.Process(target=_ask_until, args=(plan, stop, count), daemon=True)
    planning.start()
    while count.value == 0:  # the first plan is answered: from here on there is always one
        time.sleep(0.01)
    before, started = count.value, time.perf_counter()
    beside = in_own_process(predict)
    rate = (count.value - before) / (time.perf_counter() - started)
    stop.set()
    planning.join()
    return Slowdown(alone, beside, rate)


def in_own_process(predict: Route) -> list[float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return list(pool.apply(asked, (predict, PREDICTIONS + 100)))[100:]


def asked(route: Route, times: int) -> list[float]:
    with _Connection(route) as connection:
        return [connection.ask_ms() for _ in range(times)]


def _ask_until(route: Route, stop: Event, count: Any) -> None:
    with _Connection(route) as connection:
        while not stop.is_set():
            connection.ask_ms()
            count.value += 1


class _Connection:
    """The standard library's client: what it costs is small beside what it measures."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._http = http.client.HTTPConnection(urlsplit(route.url).netloc)
        self._headers = {"Authorization": f"Bearer {route.key}", "Content-Type": "application/json"}

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask_ms(self) -> float:
        started = time.perf_counter()
        self._http.request("POST", self._route.path, self._route.body, self._headers)
        reply = self._http.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{self._route.path} answered {reply.status}: {content[:500]!r}")
        return (time.perf_counter() - started) * 1000


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def report_plans(trips: dict[str, list[float]]) -> int:
    table = Table("plan of", "median ms", "p99", "best", title=f"round trip, {PLANS} plans, warm")
    missed = 0
    for name, values in trips.items():
        median = statistics.median(values)
        missed += median > PLAN_BAR_MS
        table.add_row(name, *(f"{value:.1f}" for value in (median, percentile(values, 99), min(values))))
    console.print(table)
    console.print(f"bar {PLAN_BAR_MS} ms: {'missed' if missed else 'held'}")
    return missed


def report_slowdown(name: str, rounds: list[Slowdown]) -> int:
    title = f"{PREDICTIONS} predictions, ms, while plans of {name} run"
    table = Table(
        "round", "p50 alone", "p50 beside", "p99 alone", "p99 beside", "ratio", "plans/s", title=title
    )
    ratios = []
    for number, one in enumerate(rounds, 1):
        ratios.append(percentile(one.beside, 99) / percentile(one.alone, 99))
        cells = [percentile(values, percent) for percent in (50, 99) for values in (one.alone, one.beside)]
        table.add_row(
            str(number), *(f"{cell:.2f}" for cell in cells), f"{ratios[-1]:.2f}", f"{one.plans_per_s:.0f}"
        )
    console.print(table)
    median = statistics.median(ratios)
    is_missed = median > SLOWDOWN_BAR
    console.print(f"p99: median ratio {median:.2f}, bar {SLOWDOWN_BAR}: {'missed' if is_missed else 'held'}")
    return int(is_missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
