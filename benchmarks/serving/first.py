"""The first request after a load beside the second: what a load leaves undone, the first request pays for.

    python -m benchmarks.serving.first [--only mlp|cnn|resnet18] [--loads 20]

Starts the embedded stack in a temporary folder and trains the nets of `benchmarks.serve` through it. Then
each is unloaded, loaded and asked three times about one image, as often as `--loads` says, on one connection.
A tenth of a second lies before each request. Prints the medians, and a line a net: the first request takes at
most 1.1 times as long as the second. Exits 1 where one takes longer, 2 where it could not be told, 130 at
Ctrl-C. A few minutes on two cores."""

import http.client
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cyclopts import App

from benchmarks.screen import machine, say
from benchmarks.serving.asking import TIMEOUT_S, Request, WrongAnswer, v1_jpeg, v1_json
from benchmarks.serving.cases import CASES
from benchmarks.serving.trained import NotTrained, Trained, train
from deploy.embed import StackFailed, running_stack
from modelyard import Client, ModelyardError

REQUESTS = 3
#: Before each request: a busy machine lets a process wait that has just loaded a net.
REST_S = 0.1
BAR = 1.1
FAILURES = (ModelyardError, NotTrained, OSError, StackFailed, WrongAnswer)

app = App(name="python -m benchmarks.serving.first", help=__doc__)


@app.default
def main(*, only: Literal["mlp", "cnn", "resnet18"] | None = None, loads: int = 20) -> int:
    """Measure, print, and judge.

    Args:
        only: one net
        loads: of each net
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    cases = [CASES[only]] if only is not None else [*CASES.values()]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="modelyard-first-") as folder,
            running_stack(Path(folder) / "home") as stack,
            Client(stack.url, stack.key) as client,
        ):
            say("training the nets through the service")
            nets = [train(client, case, Path(folder) / case.name) for case in cases]
            timings = [measure(stack.url, stack.key, trained, loads) for trained in nets]
    except FAILURES as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130
    return report(timings)


@dataclass(frozen=True)
class Timings:
    """In milliseconds, one of each load."""

    title: str
    load: list[float]
    requests: list[list[float]]


def measure(url: str, key: str, trained: Trained, loads: int) -> Timings:
    model = trained.case.name
    unload = Request(f"/v1/models/{model}/unload", b"", _nothing).with_key(key)
    load = Request(f"/v2/repository/models/{model}/load", b"{}", _nothing).with_key(key)
    is_encoded = bool(trained.jpegs) and trained.case.shape[1] > 32
    asking = v1_jpeg(model, trained.jpegs[0]) if is_encoded else v1_json(model, trained.pictures[0])
    asking = asking.with_key(key)
    found = Timings(trained.case.title, [], [[] for _ in range(REQUESTS)])
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    try:
        for _ in range(loads):
            took_ms(connection, unload)
            found.load.append(took_ms(connection, load))
            for times in found.requests:
                time.sleep(REST_S)
                times.append(took_ms(connection, asking))
    finally:
        connection.close()
    return found


def took_ms(connection: http.client.HTTPConnection, request: Request) -> float:
    began = time.perf_counter()
    connection.request("POST", request.path, request.body, request.headers)
    reply = connection.getresponse()
    body = reply.read()
    took_s = time.perf_counter() - began
    if reply.status != 200:
        raise WrongAnswer(f"{request.path}: expected 200, got {reply.status}: {body[:500]!r}")
    return took_s * 1000


def report(timings: list[Timings]) -> int:
    say(f"\n{machine()}\n\n| net | load | first request | second | third |\n|---|---|---|---|---|")
    for one in timings:
        cells = [f"{statistics.median(times):.2f} ms" for times in (one.load, *one.requests)]
        say(f"| {one.title} | {' | '.join(cells)} |")
    missed = 0
    for one in timings:
        ratio = statistics.median(one.requests[0]) / statistics.median(one.requests[1])
        missed += ratio > BAR
        verdict = "missed" if ratio > BAR else "held"
        say(f"{one.title}: the first request takes {ratio:.2f} of the second, bar {BAR}: {verdict}")
    return 1 if missed else 0


def _nothing(_body: bytes, _headers: object) -> int:
    return 0


if __name__ == "__main__":
    sys.exit(app())
