"""A training through the whole service, from POST to `succeeded`. All times are those of its own events."""

import shutil
import time

from benchmarks.training.cases import Case, Precision
from benchmarks.training.memory import Peak
from benchmarks.training.results import Result
from deploy.embed import RunningStack
from modelyard import Client, Event
from modelyard.specs import Dataset

TIMEOUT_S = 1800.0


class JobFailed(Exception):
    """The job did not succeed; the message says why."""


def run(stack: RunningStack, client: Client, case: Case, dataset: Dataset, precision: Precision) -> Result:
    """The images are decoded anew: what an earlier job has packed is thrown away before."""
    shutil.rmtree(stack.home / "scratch" / "packed", ignore_errors=True)
    with Peak(stack.pid, is_above_start=True) as peak:
        posted_at = time.time()
        handle = client.jobs.submit(case.spec(f"{dataset.name}@{dataset.version}", precision))
        job = handle.wait(TIMEOUT_S, raise_on_failure=False)
    events = [happening for happening in handle.watch() if isinstance(happening, Event)]
    if job.state != "succeeded":
        raise JobFailed(f"the job of {case.name} in {precision} ended {job.state}: {job.error}")
    started = next(event for event in events if event.type == "started")
    stages_ms: dict[str, float] = started.data["stages_ms"]
    loop_began_at = started.at.timestamp() - (stages_ms["first_step"] - stages_ms["build"]) / 1000
    saved_at = max(event.at.timestamp() for event in events if event.type == "checkpoint")
    succeeded = next(e for e in events if e.type == "state" and e.data["state"] == "succeeded")
    return Result(
        rows=dataset.splits["train"] * case.epochs,
        epochs_s=saved_at - loop_began_at,
        whole_s=succeeded.at.timestamp() - posted_at,
        test_accuracy=job.metrics["test_accuracy"] or 0.0,
        peak_bytes=peak.bytes,
    )
