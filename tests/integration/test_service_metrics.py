"""`/metrics` on real sockets, by Prometheus' own parser, against what was really asked."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from core.db.models import Worker, utc_now
from core.settings import Settings
from modelyard.specs import JobState
from service.__main__ import make_server
from service.inference import batcher
from service.metrics.families import STAGES
from service.metrics.stored import KEPT_S
from service.startup import CannotStart
from tests import described
from tests.running_service import Owner, RunningService, run_service
from tests.scraped import Scraped, scraped

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROW = [0.5, -1.0, 2.0]
PREDICT = "/v1/models/{model}/predict"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """With a port for metrics."""
    home = tmp_path_factory.mktemp("watched")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home, metrics_port=0) as running:
        yield running


@pytest.fixture
def owner(watched: RunningService) -> Iterator[Owner]:
    """With version 1 of `m`."""
    with watched.owner() as made:
        manifest, net = described.arrays()
        made.version(watched.settings, net, described=manifest)
        yield made


def page(client: httpx2.Client, path: str = "/metrics") -> Scraped:
    reply = client.get(path)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return scraped(reply.text)


def open_page(watched: RunningService) -> Scraped:
    """Of the port that asks for no key."""
    assert watched.server.metrics is not None
    with httpx2.Client() as client:
        return page(client, watched.server.metrics.url)


def predict(owner: Owner, rows: int, model: str = "m") -> int:
    reply = owner.client.post(f"/v1/models/{model}/predict", json={"instances": [ROW] * rows})
    return int(reply.status_code)


def infer(owner: Owner, shape: list[int]) -> int:
    tensor = {"name": "input", "datatype": "FP32", "shape": shape, "data": [1.0] * (shape[0] * shape[1])}
    return int(owner.client.post("/v2/models/m/infer", json={"inputs": [tensor]}).status_code)


def test_n_requests_are_n_counted_in_our_words_and_in_tritons(watched: RunningService, owner: Owner) -> None:
    before = page(owner.client)
    assert [predict(owner, 2) for _ in range(7)] == [200] * 7
    assert [infer(owner, [4, 3]) for _ in range(3)] == [200] * 3
    assert [infer(owner, [4, 2]) for _ in range(2)] == [400] * 2
    assert predict(owner, batcher.MAX_ROWS + 1) == 200
    after = page(owner.client)

    named = {"owner": owner.name, "model": "m", "version": "1"}
    assert after.value("nv_inference_request_success", **named) == 11
    assert after.value("nv_inference_request_failure", **named) == 2
    assert after.value("nv_inference_count", **named) == 7 * 2 + 3 * 4 + batcher.MAX_ROWS + 1
    assert after.value("nv_inference_exec_count", **named) == 12  # the last took two
    assert after.value("modelyard_inference_refusals_total", **named) == 0

    whole, stage = "modelyard_inference_duration_seconds", "modelyard_inference_stage_duration_seconds"
    assert after.value(f"{whole}_count", **named) == 11
    sums = {each: after.value(f"{stage}_sum", stage=each, **named) for each in STAGES}
    for each in STAGES:
        buckets = list(after.buckets(stage, stage=each, **named).values())
        assert buckets == sorted(buckets)
        assert buckets[-1] == after.value(f"{stage}_count", stage=each, **named) == 11
    seconds = after.value(f"{whole}_sum", **named)
    assert 0 < sum(sums.values()) < seconds
    assert min(sums[each] for each in ("decode", "transform", "forward", "encode")) > 0

    for part, expected in {
        "request": seconds,
        "queue": sums["queue"],
        "compute_input": sums["decode"] + sums["transform"],
        "compute_infer": sums["forward"],
        "compute_output": sums["encode"],
    }.items():
        microseconds = after.value(f"nv_inference_{part}_duration_us", **named)
        assert microseconds == pytest.approx(expected * 1e6, abs=1.01)

    def risen(method: str, route: str, status: int) -> float:
        labels = {"method": method, "route": route, "status": str(status)}
        name = "modelyard_http_requests_total"
        return after.total(name, **labels) - before.total(name, **labels)

    assert risen("POST", PREDICT, 200) == 8
    assert risen("POST", "/v2/models/{model}/infer", 200) == 3
    assert risen("POST", "/v2/models/{model}/infer", 400) == 2
    assert risen("GET", "/metrics", 200) == 1  # the first; the second is not over yet


def test_the_numbers_are_those_of_the_statistics_of_v2(watched: RunningService, owner: Owner) -> None:
    for rows in (1, 3):
        predict(owner, rows)
    (stats,) = owner.client.get("/v2/models/m/stats").json()["model_stats"]
    read, inferred = page(owner.client), stats["inference_stats"]
    for name, part in (
        ("request", "success"),
        ("queue", "queue"),
        ("compute_input", "compute_input"),
        ("compute_infer", "compute_infer"),
        ("compute_output", "compute_output"),
    ):
        assert read.value(f"nv_inference_{name}_duration_us", model="m") == inferred[part]["ns"] // 1000
        assert inferred[part]["count"] == 2
    assert read.value("nv_inference_count", model="m") == stats["inference_count"] == 4
    assert read.value("nv_inference_exec_count", model="m") == stats["execution_count"]


def test_counters_go_on_where_a_version_is_unloaded_and_loaded_again(
    watched: RunningService, owner: Owner
) -> None:
    predict(owner, 1)
    loaded = page(owner.client)
    assert loaded.value("modelyard_model_loaded_bytes", model="m") == 4 * (3 * 4 + 4)
    assert loaded.value("modelyard_models_loaded_bytes") >= 4 * (3 * 4 + 4)
    assert owner.client.post("/v2/repository/models/m/unload", json={}).status_code == 200
    unloaded = page(owner.client)
    assert unloaded.labels("modelyard_model_loaded_bytes") == []
    assert unloaded.value("modelyard_models_loaded") == loaded.value("modelyard_models_loaded") - 1
    predict(owner, 1)
    again = page(owner.client)
    assert again.value("modelyard_model_loaded_bytes", model="m") == 4 * (3 * 4 + 4)
    for earlier, later in ((loaded, unloaded), (unloaded, again)):
        for family in earlier.families.values():
            if family.type in ("counter", "histogram"):
                for sample in family.samples:
                    assert later.value(sample.name, **sample.labels) >= sample.value, sample
    assert again.value("nv_inference_request_success", model="m") == 2


def test_a_request_that_too_much_waits_for_is_a_refusal(
    watched: RunningService, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(owner, 1) == 200
    monkeypatch.setattr(batcher, "MAX_WAITING_ROWS", 0)
    assert predict(owner, 1) == 503
    read = page(owner.client)
    assert read.value("modelyard_inference_refusals_total", model="m") == 1
    assert read.value("nv_inference_request_failure", model="m") == 1
    assert read.value("modelyard_http_requests_total", route=PREDICT, status="503") >= 1


def test_a_stranger_gets_nothing_and_a_key_needs_to_read(watched: RunningService, owner: Owner) -> None:
    with watched.client() as stranger:
        assert stranger.get("/metrics").status_code == 401
    with watched.owner("predict", "train", "promote") as limited:
        assert limited.client.get("/metrics").status_code == 403
    with watched.owner("read") as reader:
        predict(owner, 1)
        assert page(reader.client).labels("nv_inference_count") == []
        assert owner.name not in reader.client.get("/metrics").text


def test_the_port_of_its_own_shows_every_owner_without_a_key(watched: RunningService, owner: Owner) -> None:
    predict(owner, 1)
    with watched.owner() as other:
        manifest, net = described.arrays()
        other.version(watched.settings, net, described=manifest)
        predict(other, 2)
        read = open_page(watched)
        assert read.value("nv_inference_count", owner=owner.name, model="m", version="1") == 1
        assert read.value("nv_inference_count", owner=other.name, model="m", version="1") == 2
        assert read.value("modelyard_model_loaded_bytes", owner=other.name) == 4 * (3 * 4 + 4)
        assert len(page(other.client).labels("nv_inference_count")) == 1


def test_the_port_of_its_own_has_that_page_alone_and_for_this_machine_alone(watched: RunningService) -> None:
    assert watched.server.metrics is not None
    url = watched.server.metrics.url
    port = url.split(":")[2].partition("/")[0]
    with httpx2.Client() as client:
        foreign = client.get(url, headers={"Host": f"evil.example:{port}"})
        assert (foreign.status_code, foreign.json()["code"]) == (400, "host_not_allowed")
        for method, path in (("GET", "/v1/jobs"), ("GET", "/"), ("POST", "/metrics")):
            reply = client.request(method, url.replace("/metrics", path))
            assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
        with pytest.raises(httpx2.ConnectError):
            client.get(url.replace("127.0.0.1", "127.0.0.2"))


def test_a_port_that_is_taken_is_said_before_anything_starts(watched: RunningService, tmp_path: Path) -> None:
    assert watched.server.metrics is not None
    taken = int(watched.server.metrics.url.split(":")[2].partition("/")[0])
    url = watched.settings.resolved_database_url()
    with pytest.raises(CannotStart, match=f"MODELYARD_METRICS_PORT: cannot bind 127.0.0.1 port {taken}"):
        make_server(Settings(home=tmp_path, database_url=url, metrics_port=taken))


def test_jobs_workers_and_what_waits_are_counted_once_in_some_seconds(
    database_url: str, tmp_path: Path
) -> None:
    with run_service(database_url, tmp_path) as service, service.owner() as me:
        parts, queries, at = service.server.config.app.parts, [], 0.0
        parts.counts._clock = lambda: at
        engine = parts.database.engine.sync_engine

        @event.listens_for(engine, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if "GROUP BY jobs.state" in statement:
                queries.append(statement)

        empty = page(me.client)
        assert {one["state"] for one in empty.labels("modelyard_jobs")} == {*JobState}
        assert empty.total("modelyard_jobs") == empty.total("modelyard_workers") == 0
        me.dataset()
        me.dataset("coming", state="queued")
        me.dataset("gone", state="deleted")
        done, _waiting = me.post_job()["id"], me.post_job()["id"]
        me.claim(done)
        me.move(done, JobState.SUCCEEDED)
        with me.database.write() as session:
            worker = {"host": "h", "pid": 1, "devices": [], "torch": "2", "started_at": utc_now()}
            session.add(Worker(id="w1", pool="cpu", slots=3, busy=2, **worker))
            session.add(Worker(id="w2", pool="cpu", slots=1, busy=0, **worker))
            session.commit()
        for _ in range(20):
            page(me.client)
        assert len(queries) == 1
        at = KEPT_S
        read = page(me.client)
        assert len(queries) == 2
    assert read.value("modelyard_jobs", state="queued") == 1
    assert read.value("modelyard_jobs", state="succeeded") == 1
    assert read.total("modelyard_jobs") == 2
    assert read.total("modelyard_batch_predictions") == 0
    assert read.value("modelyard_datasets", state="ready") == 1
    assert read.value("modelyard_datasets", state="processing") == 1
    assert read.total("modelyard_datasets") == 2
    assert read.value("modelyard_queue_depth", pool="cpu") == 1
    assert read.value("modelyard_queue_depth", pool="data") == 1
    assert read.value("modelyard_workers", pool="cpu") == 2
    assert read.value("modelyard_worker_slots", pool="cpu") == 4
    assert read.value("modelyard_worker_slots_busy", pool="cpu") == 2
    assert read.value("modelyard_database_up") == 1


def test_an_open_event_stream_is_counted_until_its_reader_leaves(
    watched: RunningService, owner: Owner
) -> None:
    job_id = owner.post_job()["id"]
    headers = {"Accept": "text/event-stream"}
    with owner.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as reply:
        lines = reply.iter_lines()
        next(lines)
        assert open_page(watched).value("modelyard_event_streams") == 1
    deadline = time.monotonic() + 30
    while open_page(watched).value("modelyard_event_streams") > 0:
        assert time.monotonic() < deadline, "the stream is still counted"
        time.sleep(0.05)
    route = "/v1/jobs/{job_id}/events"
    assert open_page(watched).value("modelyard_http_requests_total", route=route, status="200") == 1


def test_every_series_has_its_line_in_the_documentation_and_every_line_its_series(
    watched: RunningService, owner: Owner
) -> None:
    predict(owner, 1)
    named = re.findall(r"^# TYPE (\S+) (\S+)$", owner.client.get("/metrics").text, re.MULTILINE)
    written = re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", DOCUMENTED, re.MULTILINE)
    assert sorted(written) == sorted(named)
