"""What a job says: pages of events and metrics, and the stream that goes on where it was cut."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from core.db.models import Checkpoint, Metric, utc_now
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService

STREAM = {"Accept": "text/event-stream"}


def _messages(reply: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The event stream format, read by its own rules (HTML, 9.2.6)."""
    message: dict[str, Any] = {}
    for line in reply.iter_lines():
        if not line:
            if message:
                yield message
            message = {}
            continue
        field, _, value = line.partition(":")
        message[field or "comment"] = value.removeprefix(" ")


def _read_all(me: Owner, path: str, **headers: str) -> list[dict[str, Any]]:
    with me.client.stream("GET", path, headers={**STREAM, **headers}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        return list(_messages(reply))


@pytest.fixture
def job_id(me: Owner) -> str:
    me.dataset()
    return str(me.post_job()["id"])


def _finish(me: Owner, job_id: str) -> None:
    me.move(job_id, JobState.SUCCEEDED)


def test_events_come_in_pages_without_a_gap(me: Owner, job_id: str) -> None:
    me.claim(job_id)
    for number in range(5):
        me.say(job_id, "epoch", epoch=number)
    seen: list[int] = []
    after: str | None = "0"
    while after is not None:
        page = me.client.get(f"/v1/jobs/{job_id}/events", params={"after": after, "limit": 3}).json()
        seen += [one["seq"] for one in page["items"]]
        after = page["next"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_a_stream_of_an_ended_job_tells_all_and_ends(me: Owner, job_id: str) -> None:
    fence = me.claim(job_id)
    me.report(job_id, fence, progress={"epoch": 1}, metrics={"train_loss": 0.5})
    _finish(me, job_id)
    messages = _read_all(me, f"/v1/jobs/{job_id}/events")
    numbered = [(one["id"], one["event"]) for one in messages if "id" in one]
    assert numbered == [("1", "state"), ("2", "state"), ("3", "state")]
    assert json.loads(messages[1]["data"])["seq"] == 1
    progress = next(one for one in messages if one.get("event") == "progress")
    assert "id" not in progress
    assert json.loads(progress["data"])["metrics"] == {"train_loss": 0.5}
    assert messages[-1]["event"] == "end"
    assert "id" not in messages[-1]


def test_a_stream_follows_a_running_job(me: Owner, job_id: str) -> None:
    def work() -> None:
        time.sleep(0.3)
        fence = me.claim(job_id)
        time.sleep(0.3)
        me.report(job_id, fence, progress={"epoch": 1, "step": 10})
        time.sleep(0.3)
        me.say(job_id, "epoch", epoch=1)
        _finish(me, job_id)

    worker = threading.Thread(target=work)
    worker.start()
    started = time.monotonic()
    messages = _read_all(me, f"/v1/jobs/{job_id}/events")
    worker.join()
    assert time.monotonic() - started < 5
    assert [one["id"] for one in messages if "id" in one] == ["1", "2", "3", "4"]
    steps = [
        json.loads(one["data"])["progress"]["step"] for one in messages if one.get("event") == "progress"
    ]
    assert steps[-1] == 10
    assert steps[0] == 0


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_stream_goes_on_after_the_last_id_seen(me: Owner, job_id: str, how: str) -> None:
    me.claim(job_id)
    me.say(job_id, "epoch", epoch=1)
    _finish(me, job_id)
    path = f"/v1/jobs/{job_id}/events"
    messages = (
        _read_all(me, path, **{"Last-Event-ID": "2"}) if how == "header" else _read_all(me, f"{path}?after=2")
    )
    assert [one["id"] for one in messages if "id" in one] == ["3", "4"]
    assert messages[-1]["event"] == "end"


def test_a_stream_cut_anywhere_and_taken_up_again_loses_nothing(me: Owner, job_id: str) -> None:
    me.claim(job_id)
    for number in range(300):  # more than the stream reads at once
        me.say(job_id, "epoch", epoch=number)
    _finish(me, job_id)
    seen: list[int] = []
    headers = dict(STREAM)
    is_over = False
    while not is_over:
        with me.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as reply:
            for count, message in enumerate(_messages(reply)):
                is_over = message.get("event") == "end"
                if "id" in message:
                    seen.append(int(message["id"]))
                    headers["Last-Event-ID"] = message["id"]
                if count == 70:
                    break
    assert seen == list(range(1, 304))


def test_a_client_that_leaves_its_stream_is_forgotten(
    service: RunningService, me: Owner, job_id: str
) -> None:
    watcher = service.server.config.app.parts.jobs_watcher
    with me.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as reply:
        messages = _messages(reply)  # held: a generator that is dropped closes the stream
        next(messages)
        _until(lambda: len(watcher._waiting) == 1)
    _until(lambda: len(watcher._waiting) == 0)
    _until(lambda: watcher._task is None)


def test_metrics_come_in_the_order_of_steps_and_page(me: Owner, job_id: str) -> None:
    with me.database.write() as session:
        for step in (2, 1, 3):
            for name in ("b", "a"):
                value = None if (step, name) == (3, "a") else step / 2
                session.add(
                    Metric(
                        job_id=job_id,
                        name=name,
                        step=step,
                        epoch=0,
                        value=value,
                        non_finite="nan" if value is None else None,
                        at=utc_now(),
                    )
                )
        session.commit()
    path = f"/v1/jobs/{job_id}/metrics"
    first = me.client.get(path, params={"limit": 4}).json()
    second = me.client.get(path, params={"limit": 4, "after": first["next"]}).json()
    shown = [(one["step"], one["name"], one["value"]) for one in first["items"] + second["items"]]
    assert shown == [
        (1, "a", 0.5),
        (1, "b", 0.5),
        (2, "a", 1.0),
        (2, "b", 1.0),
        (3, "a", None),
        (3, "b", 1.5),
    ]
    assert second["next"] is None
    assert second["items"][0]["non_finite"] == "nan"
    assert {one["name"] for one in me.client.get(f"{path}?names=b,c").json()["items"]} == {"b"}


def test_checkpoints_are_listed_and_downloaded_with_range(
    service: RunningService, me: Owner, job_id: str
) -> None:
    content = bytes(range(256)) * 10_000
    key = f"jobs/{job_id}/1/5/weights.pt"
    path = service.settings.resolved_home() / "artifacts" / key
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with me.database.write() as session:
        for number, state in ((1, "collected"), (2, "ready")):
            session.add(
                Checkpoint(
                    id=f"ckpt_{job_id[4:]}{number}",
                    owner=me.name,
                    job_id=job_id,
                    state=state,
                    fence=1,
                    step=number,
                    epoch=1,
                    is_best=number == 2,
                    metrics={"val_loss": 0.1},
                    weights_key=key,
                    weights_bytes=len(content),
                    weights_sha256="ab" * 32,
                    state_key="none",
                    state_bytes=0,
                    state_sha256="",
                    created_at=utc_now(),
                )
            )
        session.commit()
    ready, collected = me.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["items"]
    assert (ready["is_best"], ready["size"], collected["state"]) == (True, len(content), "collected")
    assert me.client.get(f"/v1/checkpoints/{ready['id']}").json() == ready
    weights = f"/v1/checkpoints/{ready['id']}/weights"
    whole = me.client.get(weights)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["etag"] == f'"{"ab" * 32}"'
    assert whole.headers["content-length"] == str(len(content))
    for asked, start, stop in (
        ("0-0", 0, 1),
        ("1000-", 1000, None),
        ("-77", -77, None),
        ("5-2000000", 5, 2_000_001),
    ):
        part = me.client.get(weights, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, content[start:stop]), asked
        assert part.headers["content-range"].endswith(f"/{len(content)}")
    assert me.client.get(weights, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    unchanged = me.client.get(weights, headers={"If-None-Match": whole.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    stale = me.client.get(weights, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status_code, len(stale.content)) == (200, len(content))
    gone = me.client.get(f"/v1/checkpoints/{collected['id']}/weights")
    assert (gone.status_code, gone.json()["code"]) == (410, "collected")
    assert me.client.get("/v1/checkpoints/none/weights").status_code == 404


def _until(is_true: Any) -> None:
    deadline = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
