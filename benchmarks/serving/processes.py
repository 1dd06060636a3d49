"""What an inference process costs a request: a service that computes itself beside one that has others do it.

    python -m benchmarks.serving.processes [--only mlp|cnn|resnet18] [--processes 1] [--requests 1000]

Starts the embedded stack in a temporary folder, trains the nets of `benchmarks.serve` through it, and starts
a second service on the same home with `--inference-processes`. Both are asked about one image on one
connection each, in turns of 50 requests, so that a busy machine is busy for both. Prints medians and the
fastest tenth. Exits 2 where they could not be told, 130 at Ctrl-C. A few minutes on two cores."""

import http.client
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cyclopts import App

from benchmarks.screen import machine, say
from benchmarks.serving.asking import TIMEOUT_S, Request, WrongAnswer, v1_jpeg, v1_json
from benchmarks.serving.cases import CASES
from benchmarks.serving.first import took_ms
from benchmarks.serving.servers import ServerFailed, free_port, running
from benchmarks.serving.trained import NotTrained, Trained, train
from deploy.embed import StackFailed, running_stack
from modelyard import Client, ModelyardError

TURN = 50
FAILURES = (ModelyardError, NotTrained, OSError, ServerFailed, StackFailed, WrongAnswer)

app = App(name="python -m benchmarks.serving.processes", help=__doc__)


@dataclass(frozen=True)
class Costs:
    """In milliseconds: computed in the service, and in an inference process."""

    title: str
    here_ms: list[float]
    there_ms: list[float]


@app.default
def main(
    *, only: Literal["mlp", "cnn", "resnet18"] | None = None, processes: int = 1, requests: int = 1000
) -> int:
    """Measure and print.

    Args:
        only: one net
        processes: of the second service
        requests: of each service about each net
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    cases = [CASES[only]] if only is not None else [*CASES.values()]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="modelyard-processes-") as folder,
            running_stack(Path(folder) / "home") as stack,
            Client(stack.url, stack.key) as client,
        ):
            say("training the nets through the service")
            nets = [train(client, case, Path(folder) / case.name) for case in cases]
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            environment = {
                "MODELYARD_HOME": str(stack.home),
                "MODELYARD_PORT": str(port),
                "MODELYARD_INFERENCE_PROCESSES": str(processes),
            }
            command = [sys.executable, "-m", "service"]
            first, log = asking_of(nets[0], stack.key), Path(folder) / "service.log"
            with running(command, url, first, environment, log):
                say(f"asking, {requests} requests a side and net")
                costs = [measure(stack.url, url, net, stack.key, requests) for net in nets]
    except FAILURES as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130
    report(costs, processes)
    return 0


def measure(here: str, there: str, trained: Trained, key: str, requests: int) -> Costs:
    asking = asking_of(trained, key)
    sides = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S) for url in (here, there)]
    times: list[list[float]] = [[], []]
    try:
        for connection in sides:
            for _ in range(TURN):  # loads it, and warms what is cold
                took_ms(connection, asking)
        for _ in range(max(1, requests // TURN)):
            for connection, taken in zip(sides, times, strict=True):
                taken += [took_ms(connection, asking) for _ in range(TURN)]
    finally:
        for connection in sides:
            connection.close()
    return Costs(trained.case.title, *times)


def report(costs: list[Costs], processes: int) -> None:
    said = "one other process" if processes == 1 else f"{processes} other processes"
    say(f"\n{machine()}\n\n| net | | in the service | in {said} | more |\n|---|---|---|---|---|")
    for one in costs:
        for name, of in (("median", statistics.median), ("fastest tenth", fastest_tenth)):
            here_ms, there_ms = of(one.here_ms), of(one.there_ms)
            more_ms = there_ms - here_ms
            say(f"| {one.title} | {name} | {here_ms:.2f} ms | {there_ms:.2f} ms | {more_ms:+.2f} ms |")


def fastest_tenth(times: list[float]) -> float:
    return statistics.quantiles(times, n=10)[0]


def asking_of(trained: Trained, key: str) -> Request:
    is_encoded = bool(trained.jpegs) and trained.case.shape[1] > 32
    name = trained.case.name
    asking = v1_jpeg(name, trained.jpegs[0]) if is_encoded else v1_json(name, trained.pictures[0])
    return asking.with_key(key)


if __name__ == "__main__":
    sys.exit(app())
