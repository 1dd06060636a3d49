"""`/v1/batch-predictions` over real sockets on both databases; a worker's part is played by hand."""

import asyncio
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from torch import nn

from core.db.engines import open_async_database
from core.db.models import BatchPrediction, PredictionPart, Version, utc_now
from core.db.statements import batch_predictions as statements
from core.storage import Storage, open_storage
from modelyard.specs import BatchState
from service.collection import collect_parts
from tests.make_data import zip_bytes
from tests.running_service import Owner, RunningService

ROUTE = "/v1/batch-predictions"
CSV = b"a,b\n1,2\n3,4\n"


@pytest.fixture
def m(service: RunningService, me: Owner) -> Owner:
    """Has the version m@1 of arrays, and the dataset d@1 that it takes."""
    torch.manual_seed(7)
    me.version(service.settings, nn.Sequential(nn.Linear(4, 3)))
    return me


def post(me: Owner, **body: Any) -> httpx2.Response:
    return me.client.post(ROUTE, json={"model": "m", **body})


def queued(me: Owner, **body: Any) -> dict[str, Any]:
    reply = post(me, **({"dataset": "d"} | body))
    assert reply.status_code == 202, reply.text
    return dict(reply.json())


def upload(me: Owner, data: bytes) -> str:
    upload_id = str(me.client.post("/v1/uploads", json={"filename": "f", "length": len(data)}).json()["id"])
    headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert me.client.patch(f"/v1/uploads/{upload_id}", content=data, headers=headers).status_code == 204
    return upload_id


def take_tables(service: RunningService, me: Owner) -> None:
    """Makes m@1 a model of the columns a and b."""
    with me.database.read() as session:
        version = session.query(Version).filter_by(owner=me.name).one()
    path = service.settings.resolved_home() / "artifacts" / version.manifest_key
    manifest = json.loads(path.read_bytes())
    columns = [{"name": name, "kind": "number", "operations": []} for name in "ab"]
    path.write_bytes(json.dumps(manifest | {"kind": "table", "prepare": columns}).encode())


def storage_of(service: RunningService) -> Storage:
    return open_storage(service.settings.resolved_storage_url(), Path("unused"))


def claim(me: Owner, batch_id: str) -> None:
    move(me, batch_id, BatchState.RUNNING, fence=1)


def move(me: Owner, batch_id: str, state: BatchState, **values: Any) -> None:
    """As a worker does."""
    with me.database.write() as session:
        row = session.scalars(statements.lock(batch_id)).one()
        for name, value in values.items():
            setattr(row, name, value)
        statements.move(row, state, "test", utc_now())
        session.commit()


def test_a_batch_prediction_is_queued_for_the_version_that_the_name_means_now(m: Owner) -> None:
    first = queued(m)
    assert (first["model"], first["version"], first["state"], first["terminal"]) == ("m", 1, "queued", False)
    assert first["dataset"]["name"] == "d"
    assert first["dataset"]["split"] is None
    assert first["progress"] == {
        "rows_done": 0, "rows": 120, "errors": 0, "fraction": 0.0, "rows_per_second": None
    }  # fmt: skip
    assert first["format"] == "parquet"
    reply = post(m, dataset="d@1", split="test", format="csv", model="m@latest")
    assert reply.headers["location"] == f"{ROUTE}/{reply.json()['id']}"
    assert (reply.json()["progress"]["rows"], reply.json()["version"]) == (30, 1)
    shown = m.client.get(f"{ROUTE}/{first['id']}").json()
    assert shown == first


def test_the_same_idempotency_key_gives_the_first_answer(m: Owner) -> None:
    headers = {"Idempotency-Key": "k"}
    first, again = (
        m.client.post(ROUTE, json={"model": "m", "dataset": "d"}, headers=headers) for _ in range(2)
    )
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = m.client.post(ROUTE, json={"model": "m", "dataset": "d@1"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(m.client.get(ROUTE).json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({}, 422, "invalid", ""),
        ({"dataset": "d", "upload": "upl_" + "0" * 32}, 422, "invalid", ""),
        ({"upload": "upl_" + "0" * 32, "split": "test"}, 422, "invalid", "/split"),
        ({"upload": "upl_" + "0" * 32}, 422, "unknown_upload", "/upload"),
        ({"dataset": "none"}, 422, "unknown_dataset", "/dataset"),
        ({"dataset": "d@7"}, 422, "unknown_dataset", "/dataset"),
        ({"dataset": "d", "split": "val"}, 422, "unknown_split", "/split"),
        ({"dataset": "d", "format": "xml"}, 422, "invalid", "/format"),
        ({"dataset": "d", "model": "m@"}, 422, "invalid", "/model"),
        ({"dataset": "d", "rows": 1}, 422, "invalid", "/rows"),
        ({"dataset": "d", "model": "n"}, 404, "not_found", None),
        ({"dataset": "d", "model": "m@7"}, 404, "not_found", None),
    ],
)
def test_what_names_no_rows_or_no_model_is_refused(
    m: Owner, body: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    reply = post(m, **body)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    if pointer is not None:
        assert reply.json()["errors"][0]["pointer"] == pointer
    assert m.client.get(ROUTE).json()["items"] == []


def test_rows_that_the_model_cannot_read_are_refused_with_the_reason(
    service: RunningService, m: Owner
) -> None:
    reply = post(m, upload=upload(m, CSV))
    assert (reply.status_code, reply.json()["code"]) == (422, "unsupported_upload")
    assert "push" in reply.json()["errors"][0]["message"]
    take_tables(service, m)
    assert post(m, dataset="d").json()["code"] == "wrong_kind"
    reply = post(m, upload=upload(m, zip_bytes({"a.csv": CSV})))
    assert (reply.json()["code"], reply.json()["errors"][0]["pointer"]) == ("unsupported_upload", "/upload")
    came = queued(m, dataset=None, upload=(taken := upload(m, CSV)))
    assert (came["upload"], came["dataset"], came["progress"]["rows"]) == (taken, None, None)


def test_what_is_read_is_not_deleted_before_the_end(service: RunningService, m: Owner) -> None:
    batch = queued(m)
    reply = m.client.delete("/v1/datasets/d")
    assert (reply.status_code, reply.json()["code"]) == (409, "dataset_in_use")
    assert batch["id"] in reply.json()["detail"]
    reply = m.client.delete("/v1/models/m/versions/1")
    assert (reply.status_code, reply.json()["code"]) == (409, "version_in_use")
    take_tables(service, m)
    other = queued(m, dataset=None, upload=(taken := upload(m, CSV)))
    assert m.client.delete(f"/v1/uploads/{taken}").status_code == 409
    for one in (batch, other):
        assert m.client.post(f"{ROUTE}/{one['id']}/cancel").json()["state"] == "cancelled"
    assert m.client.delete(f"/v1/uploads/{taken}").status_code == 204


def test_a_queued_one_is_cancelled_at_once_and_a_running_one_by_its_worker(m: Owner) -> None:
    batch_id = queued(m)["id"]
    reply = m.client.post(f"{ROUTE}/{batch_id}/cancel")
    assert (reply.status_code, reply.json()["state"], reply.json()["terminal"]) == (200, "cancelled", True)
    again = m.client.post(f"{ROUTE}/{batch_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "no_such_transition")
    running = queued(m)["id"]
    claim(m, running)
    reply = m.client.post(f"{ROUTE}/{running}/cancel")
    assert (reply.status_code, reply.json()["state"]) == (202, "running")
    with m.database.write() as session:
        wish = session.execute(statements.beat(running, 1)).one()
        session.commit()
    assert wish.wanted == "cancel"


def test_its_files_come_with_their_hash_and_ranges_once_it_has_succeeded(
    service: RunningService, m: Owner, tmp_path: Path
) -> None:
    batch_id = queued(m, format="csv")["id"]
    early = m.client.get(f"{ROUTE}/{batch_id}/output")
    assert (early.status_code, early.json()["code"]) == (409, "batch_prediction_not_succeeded")
    results, data = {}, {"output": b"row,label\n0,a\n", "errors": b""}
    for which, content in data.items():
        path = tmp_path / which
        path.write_bytes(content)
        key = f"batch-predictions/{batch_id}/1/{which}.csv"
        storage_of(service).adopt(key, path)
        sha256 = hashlib.sha256(content).hexdigest()
        results[which] = {"key": key, "rows": len(content) // 14, "size": len(content), "sha256": sha256}
    claim(m, batch_id)
    move(m, batch_id, BatchState.SUCCEEDED, results=results)
    reply = m.client.get(f"{ROUTE}/{batch_id}/output")
    assert (reply.status_code, reply.content) == (200, data["output"])
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["etag"] == f'"{results["output"]["sha256"]}"'
    assert f"{batch_id}-output.csv" in reply.headers["content-disposition"]
    part = m.client.get(f"{ROUTE}/{batch_id}/output", headers={"Range": "bytes=4-8"})
    assert (part.status_code, part.content) == (206, b"label")
    assert m.client.get(f"{ROUTE}/{batch_id}/errors").content == b""
    shown = m.client.get(f"{ROUTE}/{batch_id}").json()
    assert shown["output"] == {"rows": 1, "size": 14, "sha256": results["output"]["sha256"]}


def test_lists_go_by_state_and_page_by_page(m: Owner) -> None:
    made = [queued(m)["id"] for _ in range(3)]
    m.client.post(f"{ROUTE}/{made[1]}/cancel")
    page = m.client.get(f"{ROUTE}?limit=2").json()
    rest = m.client.get(ROUTE, params={"limit": 2, "after": page["next"]}).json()
    assert [one["id"] for one in page["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None
    assert [one["id"] for one in m.client.get(f"{ROUTE}?state=cancelled").json()["items"]] == [made[1]]
    assert m.client.get(f"{ROUTE}?state=paused").status_code == 422


def test_waiting_ends_with_the_change(m: Owner) -> None:
    batch_id = queued(m)["id"]
    threading.Timer(0.2, claim, (m, batch_id)).start()
    asked = time.monotonic()
    reply = m.client.get(f"{ROUTE}/{batch_id}?wait=20")
    assert reply.json()["state"] == "running"
    assert time.monotonic() - asked < 5
    unchanged = m.client.get(f"{ROUTE}/{batch_id}", headers={"If-None-Match": reply.headers["etag"]})
    assert unchanged.status_code == 304


def test_nothing_of_it_is_another_owners(service: RunningService, m: Owner) -> None:
    batch_id = queued(m)["id"]
    with service.owner() as other:
        assert other.client.get(ROUTE).json()["items"] == []
        for path in ("", "/output", "/errors"):
            assert other.client.get(f"{ROUTE}/{batch_id}{path}").status_code == 404
        assert other.client.post(f"{ROUTE}/{batch_id}/cancel").status_code == 404
        assert other.client.post(ROUTE, json={"model": "m", "dataset": "d"}).status_code == 404
    with service.owner("read") as reader:
        assert reader.client.post(ROUTE, json={"model": "m", "dataset": "d"}).status_code == 403


def test_what_an_ended_one_leaves_in_storage_is_collected_but_for_its_files(
    service: RunningService, m: Owner, tmp_path: Path
) -> None:
    kept, dropped, running = (queued(m)["id"] for _ in range(3))
    storage = storage_of(service)
    for batch_id in (kept, dropped, running):
        claim(m, batch_id)
        for name in ("000000000000.arrow", "output.parquet", "errors.parquet"):
            (tmp_path / name).write_bytes(b"x")
            storage.adopt(f"batch-predictions/{batch_id}/1/{name}", tmp_path / name)
        with m.database.write() as session:
            key = f"batch-predictions/{batch_id}/1/000000000000.arrow"
            part = PredictionPart(batch_id=batch_id, start=0, rows=1, errors=0, key=key, size=1, sha256="0")
            session.add(part)
            session.commit()
    results = {
        which: {
            "key": f"batch-predictions/{kept}/1/{which}.parquet", "rows": 1, "size": 1, "sha256": "0" * 64
        }
        for which in ("output", "errors")
    }  # fmt: skip
    move(m, kept, BatchState.SUCCEEDED, results=results)
    move(m, dropped, BatchState.CANCELLED)

    async def collect() -> None:
        database = open_async_database(service.settings.resolved_database_url())
        await collect_parts(database, storage)
        await database.close()

    asyncio.run(collect())
    left = {one: len(list(storage.list(f"batch-predictions/{one}"))) for one in (kept, dropped, running)}
    assert left == {kept: 2, dropped: 0, running: 3}
    with m.database.read() as session:
        rows = {row.id: row.is_cleared for row in session.query(BatchPrediction).filter_by(owner=m.name)}
        parts = [row.batch_id for row in session.query(PredictionPart) if row.batch_id in rows]
    assert rows == {kept: True, dropped: True, running: False}
    assert parts == [running]
