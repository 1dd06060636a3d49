"""Jobs as a user follows them, and what they survive: killed workers, a killed broker, a restart of it all."""

import http.client
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from deploy.broker import answers_ping
from deploy.embed import RunningStack, running_stack
from examples.digits.make_digits import write_zip
from modelyard import Client, JobHandle, errors
from modelyard.specs import Event, Job, JobState
from tests.house import NET

#: Seconds of a quick net on the digits: long enough to be hit in the middle.
LONG = {"epochs": 150, "batch_size": 16, "checkpoint": {"every_epochs": 5}}
ENDLESS = {"epochs": 1_000_000, "batch_size": 16, "checkpoint": {"every_epochs": 1000}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    write_zip(path)
    return path


@pytest.fixture(scope="module")
def digits(client: Client, archive: Path) -> str:
    return client.datasets.push("digits", archive).name


def spec(**trainer: Any) -> dict[str, Any]:
    return {"name": "jobs", "dataset": "digits", "model": NET, "trainer": {"batch_size": 64, **trainer}}


def stream(
    stack: RunningStack, job_id: str, last_id: int | None = None
) -> Iterator[tuple[int | None, str, Any]]:
    """(id, event, data) of a job's event stream, read line by line as it comes; closed with the iterator."""
    headers = {"Authorization": f"Bearer {stack.key}", "Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = str(last_id)
    with closing(http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", f"/v1/jobs/{job_id}/events", headers=headers)
        reply = connection.getresponse()
        assert reply.status == 200
        assert (reply.headers["content-type"] or "").startswith("text/event-stream")
        fields: dict[str, str] = {}
        while line := reply.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield (
                    (int(fields["id"]) if "id" in fields else None),
                    fields["event"],
                    json.loads(fields["data"]),
                )
                fields = {}


def test_stream_cut_after_every_event_and_taken_up_again_loses_and_repeats_nothing(
    stack: RunningStack, client: Client, http: httpx2.Client, digits: str
) -> None:
    job_id = client.jobs.submit(spec(epochs=6)).id
    seen: list[dict[str, Any]] = []
    connections, is_over = 0, False
    while not is_over:
        connections += 1
        with closing(stream(stack, job_id, seen[-1]["seq"] if seen else None)) as messages:
            for number, event, data in messages:
                is_over = event == "end"
                if number is not None:
                    assert (number, event) == (data["seq"], data["type"])
                    seen.append(data)
                    break
    stored = http.get(f"/v1/jobs/{job_id}/events", params={"limit": 200}).json()

    assert connections == len(seen) + 1
    assert [data["seq"] for data in seen] == list(range(1, len(seen) + 1))
    assert seen == stored["items"]
    assert stored["next"] is None
    states = [data["data"]["state"] for data in seen if data["type"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert [data["data"]["epoch"] for data in seen if data["type"] == "epoch"] == [1, 2, 3, 4, 5, 6]


def test_stream_of_a_running_job_tells_its_progress_and_ends_with_it(
    stack: RunningStack, client: Client, digits: str
) -> None:
    job = client.jobs.submit(spec(epochs=3))
    messages = list(stream(stack, job.id))
    progress = [data for number, event, data in messages if event == "progress" and number is None]

    number, event, data = messages[-1]
    assert (number, event, data) == (None, "end", {"state": "succeeded"})
    assert progress[-1]["progress"]["fraction"] == 1
    fractions = [one["progress"]["fraction"] for one in progress]
    assert fractions == sorted(fractions)


def test_finished_job_tells_its_whole_story(client: Client, digits: str) -> None:
    job = client.jobs.submit(spec(epochs=3)).wait(timeout_s=60)
    values = list(client.jobs.handle(job.id).metrics(["val_accuracy"]))
    checkpoints = list(client.jobs.handle(job.id).checkpoints())

    assert (job.state, job.terminal, job.attempt, job.losses) == (JobState.SUCCEEDED, True, 1, 0)
    assert (job.progress.epoch, job.progress.epochs, job.progress.step) == (3, 3, job.progress.steps)
    assert [(value.epoch, value.step) for value in values] == [
        (n, n * job.progress.steps // 3) for n in (1, 2, 3)
    ]
    assert job.metrics.keys() >= {"train_loss", "val_loss", "val_accuracy", "test_accuracy"}
    kept = [one for one in checkpoints if one.state == "ready"]
    assert {one.epoch for one in kept} >= {2, 3}
    (best,) = (one for one in kept if one.is_best)
    assert job.best is not None
    assert (best.id, best.step) == (job.best.checkpoint, job.best.step)
    assert job.started_at
    assert job.finished_at
    assert job.created_at <= job.started_at <= job.finished_at


def test_known_job_is_304_and_a_wait_ends_with_the_next_change(
    client: Client, http: httpx2.Client, digits: str
) -> None:
    job = client.jobs.submit(spec(**ENDLESS))
    until(lambda: job.refresh().progress.step > 0, "the job trains")
    first = http.get(f"/v1/jobs/{job.id}")
    held = http.get(
        f"/v1/jobs/{job.id}", params={"wait": 30}, headers={"If-None-Match": first.headers["etag"]}
    )
    job.cancel()
    ended = job.wait(timeout_s=30)
    last = http.get(f"/v1/jobs/{job.id}")
    asked = time.monotonic()
    known = http.get(
        f"/v1/jobs/{job.id}", params={"wait": 30}, headers={"If-None-Match": last.headers["etag"]}
    )

    assert (held.status_code, held.json()["state"]) == (200, "running")
    assert held.headers["etag"] != first.headers["etag"]
    assert held.json()["progress"] != first.json()["progress"]
    assert (known.status_code, known.content) == (304, b"")
    assert time.monotonic() - asked < 5  # an ended job does not change any more
    assert ended.state is JobState.CANCELLED


def test_running_job_is_cancelled_within_5_seconds_and_its_slot_is_free(client: Client, digits: str) -> None:
    job = client.jobs.submit(spec(**ENDLESS))
    until(lambda: job.refresh().progress.step > 0, "the job trains")
    asked = time.monotonic()
    wanted = job.cancel().wanted
    ended = job.wait(timeout_s=30)
    took_s = time.monotonic() - asked

    assert wanted == "cancel"
    assert ended.state is JobState.CANCELLED
    assert took_s < 5
    assert ended.error is None
    assert ended.registered is None
    with pytest.raises(errors.Conflict):
        job.cancel()
    assert client.jobs.submit(spec(epochs=1)).wait(timeout_s=30).state is JobState.SUCCEEDED
    client.jobs.delete(job.id)
    with pytest.raises(errors.NotFound):
        job.refresh()


def test_idempotency_key_twice_is_one_job_and_with_another_body_422(http: httpx2.Client, digits: str) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    first = http.post("/v1/jobs", json=spec(epochs=1), headers=headers)
    again = http.post("/v1/jobs", json=spec(epochs=1), headers=headers)
    other = http.post("/v1/jobs", json=spec(epochs=2), headers=headers)
    without = http.post("/v1/jobs", json=spec(epochs=1))

    assert [reply.status_code for reply in (first, again, other, without)] == [202, 202, 422, 202]
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    assert other.json()["code"] == "idempotency_mismatch"
    assert without.json()["id"] != first.json()["id"]


def test_jobs_are_listed_by_state_and_by_name(client: Client, digits: str) -> None:
    job = client.jobs.submit({**spec(epochs=1), "name": "listed"}).wait(timeout_s=60)

    assert [one.id for one in client.jobs.list(name="listed")] == [job.id]
    assert [one.id for one in client.jobs.list(name="listed", state="succeeded")] == [job.id]
    assert list(client.jobs.list(name="listed", state="failed")) == []


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[tuple[RunningStack, Client]]:
    """A stack of its own that notices losses soon."""
    home = tmp_path_factory.mktemp("fragile")
    with (
        running_stack(home, lease_s="3", beat_s="0.5", sweep_s="0.5", slots="2") as stack,
        Client(stack.url, stack.key) as client,
    ):
        client.datasets.push("digits", archive)
        yield stack, client


@pytest.mark.timeout(180)
def test_job_whose_worker_is_killed_goes_on_from_its_checkpoint_in_attempt_2(
    fragile: tuple[RunningStack, Client],
) -> None:
    stack, client = fragile
    job = client.jobs.submit(spec(**LONG))
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
def test_job_whose_training_process_is_killed_is_tried_again_at_once(
    fragile: tuple[RunningStack, Client],
) -> None:
    stack, client = fragile
    job = client.jobs.submit(spec(**LONG))
    saved = first_checkpoint(job)
    (trainer,) = (pid for pid in descendants(worker_of(stack)) if is_trainer(pid))
    os.kill(trainer, signal.SIGKILL)
    ended = job.wait(timeout_s=120)

    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert_went_on(job, ended, saved, "signal 9")


@pytest.mark.timeout(180)
def test_broker_that_is_killed_comes_back_and_jobs_run_on(fragile: tuple[RunningStack, Client]) -> None:
    stack, client = fragile
    running = client.jobs.submit(spec(**LONG))
    first_checkpoint(running)
    (broker,) = (pid for pid in descendants(stack.pid) if "broker.sock" in command_of(pid))
    os.kill(broker, signal.SIGKILL)
    until(lambda: not is_running(broker), "the broker is dead")
    queued = client.jobs.submit(spec(epochs=1))
    ended = queued.wait(timeout_s=60)

    assert ended.state is JobState.SUCCEEDED
    assert answers_ping(stack.home / "broker.sock")
    undisturbed = running.wait(timeout_s=120)
    assert (undisturbed.state, undisturbed.attempt) == (JobState.SUCCEEDED, 1)
    assert client.health()["broker"] == "ok"


@pytest.mark.timeout(240)
def test_stack_stopped_while_training_ends_well_and_goes_on_when_it_is_up_again(
    tmp_path: Path, archive: Path
) -> None:
    home = tmp_path / "home"
    with running_stack(home, slots="2") as stack, Client(stack.url, stack.key) as client:
        client.datasets.push("digits", archive)
        job = client.jobs.submit(spec(**LONG))
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
    steps_per_epoch = ended.progress.steps // LONG["epochs"]
    events = [one for one in job.watch() if isinstance(one, Event)]
    (back,) = (one for one in ended.transitions[1:] if one.state is JobState.QUEUED)
    (rewound,) = (one for one in events if one.type == "rewound")
    assert reason in back.reason
    assert rewound.data["step"] >= saved
    assert ended.progress.step == ended.progress.steps
    steps = [value.step for value in job.metrics(["val_loss"])]
    assert steps == [epoch * steps_per_epoch for epoch in range(1, LONG["epochs"] + 1)]
    assert [one.seq for one in events] == list(range(1, len(events) + 1))


def worker_of(stack: RunningStack) -> int:
    """The pid of the newest worker that trains."""
    with closing(sqlite3.connect(stack.home / "modelyard.db")) as database:
        query = "SELECT pid FROM workers WHERE pool = 'cpu' ORDER BY started_at DESC LIMIT 1"
        ((pid,),) = database.execute(query).fetchall()
    return int(pid)


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]
    return [one for child in children for one in (child, *descendants(child))]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def is_trainer(pid: int) -> bool:
    """A process that the fork server has forked: it has its command line, and it as its parent."""
    parent = int(stat_of(pid)[1])
    return "forkserver" in command_of(pid) and "forkserver" in command_of(parent)


def is_running(pid: int) -> bool:
    try:
        return stat_of(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def stat_of(pid: int) -> list[str]:
    """From the state on; the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def until(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
