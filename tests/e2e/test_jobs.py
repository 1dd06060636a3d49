"""Jobs as a user follows them: events, waiting, cancelling, repeating a request."""

import http.client
import json
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from deploy.embed import RunningStack
from modelyard import Client, errors
from modelyard.specs import JobState
from tests.house import NET

ENDLESS = {"epochs": 1_000_000, "checkpoint": {"every_epochs": 1000}}


@pytest.fixture(scope="module")
def digits(client: Client, digits_zip: Path) -> str:
    return client.datasets.push("digits", digits_zip).name


def spec(**trainer: Any) -> dict[str, Any]:
    return {"name": "jobs", "dataset": "digits", "model": NET, "trainer": {"batch_size": 64, **trainer}}


def stream(
    stack: RunningStack, job_id: str, last_id: int | None = None
) -> Generator[tuple[int | None, str, Any]]:
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


def until(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
