"""What a job survives: a killed worker, a killed training, a killed broker, a restart of the whole stack."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.broker import answers_ping
from deploy.embed import RunningStack, running_stack
from modelyard import Client, JobHandle
from modelyard.specs import Event, Job, JobState
from tests.house import NET

#: Seconds of a quick net on the digits: long enough to be hit in the middle.
EPOCHS = 60


def spec(epochs: int) -> dict[str, Any]:
    trainer = {"epochs": epochs, "batch_size": 16, "checkpoint": {"every_epochs": 5}}
    return {"name": "survivor", "dataset": "digits", "model": NET, "trainer": trainer}


@pytest.fixture(scope="module")
def fragile(
    tmp_path_factory: pytest.TempPathFactory, digits_zip: Path
) -> Iterator[tuple[RunningStack, Client]]:
    """A stack of its own that notices losses soon."""
    home = tmp_path_factory.mktemp("fragile")
    with (
        running_stack(home, lease_s="3", beat_s="0.5", sweep_s="0.5", slots="2") as stack,
        Client(stack.url, stack.key) as client,
    ):
        client.datasets.push("digits", digits_zip)
        yield stack, client


@pytest.mark.timeout(180)
def test_worker_kill9_in_the_stack_goes_on_from_the_checkpoint_in_attempt_2(
    fragile: tuple[RunningStack, Client],
) -> None:
    stack, client = fragile
    job = client.jobs.submit(spec(EPOCHS))
    saved = first_checkpoint(job)
    worker = worker_of(stack)
    family = [worker, *descendants(worker)]
    os.kill(worker, signal.SIGKILL)
    until(lambda: not any(map(is_running, family)), "the training died with its worker", within_s=5)
    ended = job.wait(timeout_s=120)

    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert ended.registered is not None
    assert_went_on(job, ended, saved, "worker lost")


@pytest.mark.timeout(180)
def test_child_kill9_in_the_stack_is_tried_again_at_once(
    fragile: tuple[RunningStack, Client],
) -> None:
    stack, client = fragile
    job = client.jobs.submit(spec(EPOCHS))
    saved = first_checkpoint(job)
    until(lambda: len(trainers_of(stack)) == 1, "the trainer of the job before is gone", within_s=5)
    os.kill(trainers_of(stack)[0], signal.SIGKILL)
    ended = job.wait(timeout_s=120)

    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert_went_on(job, ended, saved, "signal 9")


@pytest.mark.timeout(180)
def test_redis_kill9_mid_job_in_the_stack_comes_back_and_jobs_run_on(
    fragile: tuple[RunningStack, Client],
) -> None:
    stack, client = fragile
    running = client.jobs.submit(spec(EPOCHS))
    first_checkpoint(running)
    (broker,) = (pid for pid in descendants(stack.pid) if "broker.sock" in command_of(pid))
    os.kill(broker, signal.SIGKILL)
    until(lambda: not is_running(broker), "the broker is dead")
    queued = client.jobs.submit(spec(1))
    ended = queued.wait(timeout_s=60)

    assert ended.state is JobState.SUCCEEDED
    assert answers_ping(stack.home / "broker.sock")
    undisturbed = running.wait(timeout_s=120)
    assert (undisturbed.state, undisturbed.attempt) == (JobState.SUCCEEDED, 1)
    assert client.health()["broker"] == "ok"


@pytest.mark.timeout(240)
def test_sigterm_drain_of_the_stack_ends_well_and_it_goes_on_when_it_is_up_again(
    tmp_path: Path, digits_zip: Path
) -> None:
    home = tmp_path / "home"
    with running_stack(home, slots="2") as stack, Client(stack.url, stack.key) as client:
        client.datasets.push("digits", digits_zip)
        job = client.jobs.submit(spec(EPOCHS))
        saved = first_checkpoint(job)
        asked = time.monotonic()
        os.kill(stack.pid, signal.SIGTERM)
        until(lambda: not is_running(stack.pid), "the stack has ended", within_s=30)
    # Here `running_stack` has seen exit status 0; else it raises.
    took_s = time.monotonic() - asked
    with closing(sqlite3.connect(home / "modelyard.db")) as database:
        ((state, transitions),) = database.execute("SELECT state, transitions FROM jobs").fetchall()

    assert took_s < 25
    assert state == "queued"
    assert json.loads(transitions)[-1]["reason"] == "drained"
    with running_stack(home, slots="2") as stack, Client(stack.url, stack.key) as client:
        again = client.jobs.handle(job.id)
        ended = again.wait(timeout_s=120)
        assert (ended.state, ended.attempt, ended.losses) == (JobState.SUCCEEDED, 2, 0)
        assert_went_on(again, ended, saved, "drained")


def first_checkpoint(job: JobHandle) -> int:
    """Waits for it; its step."""
    for happening in job.watch():
        if isinstance(happening, Event) and happening.type == "checkpoint":
            step: int = happening.data["step"]
            return step
    raise AssertionError(f"{job} ended without a checkpoint")


def assert_went_on(job: JobHandle, ended: Job, saved: int, reason: str) -> None:
    """From a checkpoint, not from the start; every epoch counted once, in the metrics as in the result."""
    steps_per_epoch = ended.progress.steps // EPOCHS
    events = [one for one in job.watch() if isinstance(one, Event)]
    (back,) = (one for one in ended.transitions[1:] if one.state is JobState.QUEUED)
    (rewound,) = (one for one in events if one.type == "rewound")
    assert reason in back.reason
    assert rewound.data["step"] >= saved
    assert ended.progress.step == ended.progress.steps
    steps = [value.step for value in job.metrics(["val_loss"])]
    assert steps == [epoch * steps_per_epoch for epoch in range(1, EPOCHS + 1)]
    assert [one.seq for one in events] == list(range(1, len(events) + 1))


def worker_of(stack: RunningStack) -> int:
    """The pid of the newest worker that trains."""
    with closing(sqlite3.connect(stack.home / "modelyard.db")) as database:
        query = "SELECT pid FROM workers WHERE pool = 'cpu' ORDER BY started_at DESC LIMIT 1"
        ((pid,),) = database.execute(query).fetchall()
    return int(pid)


def trainers_of(stack: RunningStack) -> list[int]:
    """The processes that the worker's fork server has forked: they have its command line."""
    servers = [pid for pid in descendants(worker_of(stack)) if "forkserver" in command_of(pid)]
    return [pid for pid in servers if int(stat_of(pid)[1]) in servers]


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return [one for child in children for one in (child, *descendants(child))]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def is_running(pid: int) -> bool:
    try:
        return stat_of(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def stat_of(pid: int) -> list[str]:
    """State, parent and so on; the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def until(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
