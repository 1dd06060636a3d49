"""How long a job takes around its training: from POST to the first optimizer step, and to `succeeded`.

    python -m benchmarks.job_latency

Starts the embedded stack in a temporary folder, warms it with one job, then trains tiny jobs one after
another on scikit-learn's digits, and prints the medians of each stage. Exits 1 where a bar is missed.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.embed import running_stack
from examples.digits.make_digits import write_zip
from modelyard import Client, Event

JOBS = 20
FIRST_STEP_BAR_MS = 150
SUCCEEDED_BAR_MS = 1000

#: One epoch of all digits; the first step of it is what a tiny job's first step is.
SPEC: dict[str, Any] = {
    "name": "latency",
    "dataset": "digits",
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Flatten"},
            {"type": "Linear", "out_features": 64},
            {"type": "ReLU"},
            {"type": "Linear", "out_features": 10},
        ],
    },
    "optimizer": {"type": "SGD", "lr": 0.1},
    "trainer": {"epochs": 1, "batch_size": 64},
}

console = Console()


@dataclass(frozen=True)
class Timing:
    """Milliseconds from just before the POST. The stack runs on this machine: its clock is ours."""

    answered: float
    claimed: float
    child_data: float
    child_built: float
    first_step: float
    succeeded: float
    seen: float


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        write_zip(Path(folder) / "digits.zip")
        with running_stack(Path(folder) / "home") as stack, Client(stack.url, stack.key) as client:
            client.datasets.push("digits", Path(folder) / "digits.zip")
            measure(client)  # pays what a fresh stack pays once: packed pixels, first connections
            timings = [measure(client) for _ in range(JOBS)]
    return report(timings)


def measure(client: Client) -> Timing:
    posted_at = time.time()
    job = client.jobs.submit(SPEC)
    answered_at = time.time()
    events = [happening for happening in job.watch() if isinstance(happening, Event)]
    seen_at = time.time()

    def since_post(event: Event) -> float:
        return (event.at.timestamp() - posted_at) * 1000

    states = {event.data["state"]: event for event in events if event.type == "state"}
    started = next(event for event in events if event.type == "started")
    stages_ms: dict[str, float] = started.data["stages_ms"]
    first_step = since_post(started)
    born = first_step - stages_ms["first_step"]
    return Timing(
        answered=(answered_at - posted_at) * 1000,
        claimed=since_post(states["running"]),
        child_data=born + stages_ms["data"],
        child_built=born + stages_ms["build"],
        first_step=first_step,
        succeeded=since_post(states["succeeded"]),
        seen=(seen_at - posted_at) * 1000,
    )


def report(timings: list[Timing]) -> int:
    stages = {
        "POST answered": [t.answered for t in timings],
        "claimed by the worker": [t.claimed for t in timings],
        "child has its data": [t.child_data for t in timings],
        "child has built the net": [t.child_built for t in timings],
        "first optimizer step": [t.first_step for t in timings],
        "succeeded, version registered": [t.succeeded for t in timings],
        "seen by the client": [t.seen for t in timings],
    }
    table = Table(
        "from POST to", "median ms", "best", "worst", title=f"{len(timings)} jobs, one after another"
    )
    for stage, values in stages.items():
        table.add_row(
            stage, *(f"{value:.0f}" for value in (statistics.median(values), min(values), max(values)))
        )
    console.print(table)
    bars = (("first optimizer step", FIRST_STEP_BAR_MS), ("succeeded, version registered", SUCCEEDED_BAR_MS))
    missed = 0
    for stage, bar in bars:
        median = statistics.median(stages[stage])
        missed += median > bar
        console.print(
            f"{stage}: median {median:.0f} ms, bar {bar} ms: {'missed' if median > bar else 'held'}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
