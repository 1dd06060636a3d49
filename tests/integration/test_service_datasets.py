"""Uploads over a real socket, and what became of them."""

import hashlib
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from core.db.models import Dataset
from modelyard.specs import JobState
from service import uploads
from tests.running_service import Owner, RunningService, run_service

BYTES = bytes(range(256)) * 20_000  # 5 MB


def _set(me: Owner, dataset_id: str, **values: object) -> None:
    with me.database.write() as session:
        row = session.get_one(Dataset, dataset_id)
        for name, value in values.items():
            setattr(row, name, value)
        row.revision += 1
        session.commit()


def _spooled(service: RunningService) -> list[Path]:
    return list((service.settings.scratch() / "spool").glob("*"))


def _sources(service: RunningService) -> set[Path]:
    return set((service.settings.resolved_home() / "artifacts").rglob("source"))


def test_a_put_stores_the_very_bytes(service: RunningService, me: Owner) -> None:
    reply = me.client.put("/v1/datasets/mine", content=BYTES, params={"filename": "../a/b.zip"})
    assert reply.status_code == 202, reply.text
    body = reply.json()
    assert reply.headers["location"] == "/v1/datasets/mine/versions/1"
    assert (body["name"], body["version"], body["state"]) == ("mine", 1, "processing")
    assert body["bytes"] == len(BYTES)
    assert body["sha256"] == hashlib.sha256(BYTES).hexdigest()
    stored = service.settings.resolved_home() / "artifacts" / "datasets" / body["id"] / "source"
    assert stored.read_bytes() == BYTES
    assert _spooled(service) == []
    with me.database.read() as session:
        row = session.get_one(Dataset, body["id"])
        assert (row.state, row.filename, row.source_key) == (
            "queued",
            "b.zip",
            f"datasets/{body['id']}/source",
        )


def test_the_same_bytes_are_one_version(service: RunningService, me: Owner) -> None:
    first = me.client.put("/v1/datasets/mine", content=b"same")
    before = _sources(service)
    again = me.client.put("/v1/datasets/mine", content=b"same")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert _sources(service) == before
    assert (
        me.client.put("/v1/datasets/mine", content=b"same", params={"format": "table"}).json()["version"] == 2
    )
    options = me.client.put(
        "/v1/datasets/mine", content=b"same", params={"format": "table", "options": '{"target":"y"}'}
    )
    assert options.json()["version"] == 3
    assert me.client.put("/v1/datasets/mine", content=b"other").json()["version"] == 4
    assert len(me.client.get("/v1/datasets/mine/versions").json()["items"]) == 4


def test_a_version_that_failed_for_its_workers_is_tried_again(me: Owner) -> None:
    first = me.client.put("/v1/datasets/mine", content=b"same").json()
    problem = {"type": "t", "title": "t", "status": 422, "detail": "d", "code": "worker_lost"}
    _set(me, first["id"], state="failed", error=problem)
    assert me.client.put("/v1/datasets/mine", content=b"same").json()["version"] == 2


def test_uploads_at_the_same_time_get_different_numbers(service: RunningService, me: Owner) -> None:
    numbers: list[int] = []

    def upload(number: int) -> None:
        with service.client(me.key) as client:
            reply = client.put("/v1/datasets/race", content=f"bytes {number}".encode())
            assert reply.status_code == 202, reply.text
            numbers.append(reply.json()["version"])

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "params"),
    [("UPPER", {}), ("-x", {}), ("x" * 64, {}), ("ok", {"format": "pickle"}), ("ok", {"options": "[]"})],
)
def test_a_put_that_cannot_be_meant_is_422_and_leaves_nothing(
    service: RunningService, me: Owner, name: str, params: dict[str, str]
) -> None:
    before = _sources(service)
    assert me.client.put(f"/v1/datasets/{name}", content=b"x", params=params).status_code == 422
    assert me.client.get("/v1/datasets").json()["items"] == []
    assert _sources(service) == before
    assert _spooled(service) == []


def test_options_that_are_no_json_are_400(me: Owner) -> None:
    assert me.client.put("/v1/datasets/ok", content=b"x", params={"options": "{"}).status_code == 400


def test_more_than_the_largest_upload_is_413_announced_or_not(tmp_path: Path) -> None:
    def chunked() -> object:
        for _ in range(40):
            yield b"x" * 100_000

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, max_upload_bytes=3_000_000) as service, service.owner() as me:
        announced = me.client.put("/v1/datasets/d", content=b"x" * 3_000_001)
        streamed = me.client.put("/v1/datasets/d", content=chunked())
        fits = me.client.put("/v1/datasets/d", content=b"x" * 3_000_000)
        assert (announced.status_code, streamed.status_code, fits.status_code) == (413, 413, 202)
        assert _spooled(service) == []


def test_a_full_disk_is_503_with_a_wait(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, min_free_bytes=2**60) as service, service.owner() as me:
        reply = me.client.put("/v1/datasets/d", content=b"x")
        assert reply.status_code == 503
        assert reply.json()["code"] == "storage_full"
        assert int(reply.headers["retry-after"]) > 0


def test_an_upload_that_stalls_is_cut_and_leaves_nothing(tmp_path: Path) -> None:
    def stalling() -> object:
        yield b"x" * 10
        time.sleep(1.5)
        yield b"x"

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, chunk_timeout_s=0.3) as service, service.owner() as me:
        reply = me.client.put("/v1/datasets/d", content=stalling())
        assert reply.status_code == 400
        assert reply.json()["code"] == "body_timeout"
        assert _spooled(service) == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing(service: RunningService, me: Owner) -> None:
    def leaving() -> object:
        yield b"x" * 3_000_000
        raise KeyboardInterrupt

    before = _sources(service)
    with service.client(me.key) as client, pytest.raises(KeyboardInterrupt):
        client.put("/v1/datasets/d", content=leaving())
    deadline = time.monotonic() + 5
    while _spooled(service) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _spooled(service) == []
    assert _sources(service) == before
    assert me.client.get("/v1/datasets/d").status_code == 404


def test_a_form_is_an_upload_too(service: RunningService, me: Owner) -> None:
    form = {"name": "small", "format": "table"}
    reply = me.client.post("/v1/datasets", data=form, files={"file": ("iris.csv", b"a,b\n1,2\n")})
    assert reply.status_code == 202, reply.text
    body = reply.json()
    assert (body["name"], body["format"], body["bytes"]) == ("small", "table", 8)
    stored = service.settings.resolved_home() / "artifacts" / "datasets" / body["id"] / "source"
    assert stored.read_bytes() == b"a,b\n1,2\n"


def test_a_form_over_10_mb_points_at_put(me: Owner) -> None:
    reply = me.client.post("/v1/datasets", data={"name": "big"}, files={"file": ("x", b"x" * 11_000_000)})
    assert reply.status_code == 413
    assert "PUT /v1/datasets/" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"nothing", "multipart/form-data", 422),
        (b"nothing", "multipart/form-data; boundary=x", 400),
        (b"{}", "application/json", 422),
        (b"name=x", "application/x-www-form-urlencoded", 422),
    ],
)
def test_a_broken_form_is_a_problem(me: Owner, content: bytes, kind: str, status: int) -> None:
    reply = me.client.post("/v1/datasets", content=content, headers={"Content-Type": kind})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")


def test_a_ready_dataset_says_what_is_in_it(me: Owner) -> None:
    me.dataset()
    body = me.client.get("/v1/datasets/d").json()
    assert body["state"] == "ready"
    assert body["num_samples"] == 120
    assert body["splits"] == {"train": 90, "test": 30}
    assert body["classes"] == ["a", "b", "c"]
    assert body["features"]["x"] == {"dtype": "float32", "shape": [4]}
    assert body["stats"]["class_counts"] == {"train": [30, 30, 30]}


def test_lists_have_the_newest_version_of_each_name_and_pages(me: Owner) -> None:
    for name in ("a", "b", "c"):
        me.dataset(name)
    me.dataset("a")
    first = me.client.get("/v1/datasets?limit=2").json()
    second = me.client.get("/v1/datasets", params={"limit": 2, "after": first["next"]}).json()
    shown = [(one["name"], one["version"]) for one in first["items"] + second["items"]]
    assert shown == [("a", 2), ("c", 1), ("b", 1)]
    assert second["next"] is None


def test_wait_holds_until_the_dataset_is_read(service: RunningService, me: Owner) -> None:
    dataset_id = me.dataset(state="ingesting")
    timer = threading.Timer(0.4, _set, (me, dataset_id), {"state": "failed"})
    timer.start()
    started = time.monotonic()
    body = me.client.get("/v1/datasets/d?wait=10").json()
    timer.join()
    assert body["state"] == "failed"
    assert 0.3 < time.monotonic() - started < 3


def test_wait_ends_with_its_time(me: Owner) -> None:
    me.dataset(state="ingesting")
    started = time.monotonic()
    assert me.client.get("/v1/datasets/d?wait=0.3").json()["state"] == "processing"
    assert 0.25 < time.monotonic() - started < 3


def test_a_dataset_in_use_is_not_deleted(me: Owner) -> None:
    me.dataset()
    job = me.post_job()
    refused = me.client.delete("/v1/datasets/d")
    assert refused.status_code == 409
    assert job["id"] in refused.json()["detail"]
    me.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert me.client.delete("/v1/datasets/d").status_code == 204
    assert me.client.get("/v1/datasets/d").status_code == 404
    assert me.client.get(f"/v1/jobs/{job['id']}").json()["dataset"]["name"] == "d"


def test_deleting_takes_the_bytes_and_keeps_the_number(service: RunningService, me: Owner) -> None:
    before = _sources(service)
    me.client.put("/v1/datasets/gone", content=b"1")
    me.client.put("/v1/datasets/gone", content=b"2")
    assert me.client.delete("/v1/datasets/gone/versions/2").status_code == 204
    assert me.client.get("/v1/datasets/gone").json()["version"] == 1
    assert me.client.delete("/v1/datasets/gone").status_code == 204
    assert _sources(service) == before
    assert me.client.delete("/v1/datasets/gone").status_code == 404
    assert me.client.put("/v1/datasets/gone", content=b"2").json()["version"] == 3


def test_a_dataset_still_processing_has_no_samples_yet(me: Owner) -> None:
    me.dataset(state="queued")
    reply = me.client.get("/v1/datasets/d/samples")
    assert (reply.status_code, reply.json()["code"]) == (409, "dataset_not_ready")
    assert "retry-after" in reply.headers


def test_samples_of_a_split_that_is_not_there_are_404_and_name_those_that_are(me: Owner) -> None:
    me.dataset()
    reply = me.client.get("/v1/datasets/d/samples?split=tset")
    assert reply.status_code == 404
    assert "it has train, test" in reply.json()["detail"]


def test_a_jobs_state_is_of_no_matter_to_another_dataset(me: Owner) -> None:
    me.dataset("d")
    me.dataset("e")
    job = me.post_job(dataset="d")
    me.claim(job["id"])
    assert me.row(job["id"]).state == JobState.RUNNING
    assert me.client.delete("/v1/datasets/e").status_code == 204


def test_a_form_with_an_idempotency_key_gives_the_first_answer_again(me: Owner) -> None:
    key = {"Idempotency-Key": "k"}
    first = me.client.post("/v1/datasets", data={"name": "a"}, files={"file": ("x", b"1")}, headers=key)
    again = me.client.post("/v1/datasets", data={"name": "a"}, files={"file": ("x", b"1")}, headers=key)
    other = me.client.post("/v1/datasets", data={"name": "a"}, files={"file": ("x", b"2")}, headers=key)
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 422)
    assert again.json() == first.json()
    assert len(me.client.get("/v1/datasets/a/versions").json()["items"]) == 1


def test_bytes_whose_row_could_not_be_written_are_not_left_behind(
    service: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise OperationalError("INSERT", {}, Exception("gone"))

    before = _sources(service)
    monkeypatch.setattr(uploads.datasets, "next_number", fail)
    reply = me.client.put("/v1/datasets/d", content=b"x")
    assert (reply.status_code, reply.json()["code"]) == (503, "database_unavailable")
    assert int(reply.headers["retry-after"]) > 0
    assert _sources(service) == before
    assert _spooled(service) == []
