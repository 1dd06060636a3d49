"""`/v1/uploads` over real sockets on both databases."""

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from sqlalchemy import select
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torchvision import models

from core.db.engines import open_async_database
from core.db.models import Dataset, Job, Upload, utc_now
from core.settings import Settings
from core.storage import open_storage
from service.collection import collect_expired, collect_strays
from service.from_upload import paths_of
from tests.prepared import manifest_of
from tests.running_service import Owner, RunningService, run_service
from tests.uploads import DATA, PIECE, begin, complete, offset_of, row_of, send, stored


def test_pieces_become_one_file_in_storage_with_its_sha256(service: RunningService, me: Owner) -> None:
    upload_id = begin(me)
    for start in range(0, len(DATA), 30_000):
        reply = send(me, upload_id, start, DATA[start : start + 30_000])
        assert (reply.status_code, reply.content) == (204, b"")
        assert (
            int(reply.headers["upload-offset"]) == offset_of(me, upload_id) == min(start + 30_000, len(DATA))
        )
    assert row_of(me, upload_id).sha256 == hashlib.sha256(DATA).hexdigest()
    assert stored(service, upload_id) == {"/data": DATA}


def test_more_than_was_announced_is_413_and_none_of_it_is_kept(me: Owner) -> None:
    upload_id = begin(me, 100)
    assert send(me, upload_id, 0, b"x" * 101).status_code == 413
    assert offset_of(me, upload_id) == 0


def test_a_service_that_died_before_all_was_put_together_does_it_when_asked(
    service: RunningService, me: Owner
) -> None:
    upload_id = begin(me)
    send(me, upload_id, 0, DATA[:60_000])
    send(me, upload_id, 60_000, DATA[60_000:99_999])
    with me.database.write() as session:  # as if the last byte had been announced and the service had died
        row = session.get_one(Upload, upload_id)
        row.length = 99_999
        session.commit()
    assert row_of(me, upload_id).sha256 is None
    assert send(me, upload_id, 99_999, b"").status_code == 204
    assert stored(service, upload_id) == {"/data": DATA[:99_999]}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"filename": "f", "length": 0}, "/length"),
        ({"filename": "f", "length": "1"}, "/length"),
        ({"filename": "", "length": 1}, "/filename"),
        ({"length": 1}, ""),
        ({"filenme": "f", "length": 1}, "/filenme"),
        ({"filename": "a\x00b", "length": 1}, "/filename"),
    ],
)
def test_what_cannot_be_meant_is_422(me: Owner, body: dict[str, object], pointer: str) -> None:
    reply = me.client.post("/v1/uploads", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == pointer


def test_larger_than_an_upload_may_be_is_413_before_a_byte_is_sent(me: Owner) -> None:
    limit = Settings().max_upload_bytes
    reply = me.client.post("/v1/uploads", json={"filename": "f", "length": limit + 1})
    assert reply.status_code == 413


def test_a_piece_of_another_media_type_or_without_its_place_is_refused(me: Owner) -> None:
    upload_id = begin(me)
    assert me.client.patch(f"/v1/uploads/{upload_id}", content=b"x", headers=PIECE).status_code == 422
    headers = {"Upload-Offset": "0", "Content-Type": "text/plain"}
    assert me.client.patch(f"/v1/uploads/{upload_id}", content=b"x", headers=headers).status_code == 415
    assert send(me, upload_id, -1, b"x").status_code == 422


def test_another_owners_upload_is_404_on_every_route(service: RunningService, me: Owner) -> None:
    upload_id = complete(me)
    with service.owner() as other:
        assert other.client.head(f"/v1/uploads/{upload_id}").status_code == 404
        assert send(other, upload_id, 0, b"x").status_code == 404
        assert other.client.delete(f"/v1/uploads/{upload_id}").status_code == 404
        body = {"name": "d", "upload": upload_id}
        assert other.client.post("/v1/datasets", json=body).json()["code"] == "unknown_upload"
    assert offset_of(me, upload_id) == len(DATA)


def test_a_deleted_upload_leaves_nothing(service: RunningService, me: Owner) -> None:
    upload_id = begin(me)
    send(me, upload_id, 0, DATA[:10])
    assert me.client.delete(f"/v1/uploads/{upload_id}").status_code == 204
    assert me.client.head(f"/v1/uploads/{upload_id}").status_code == 404
    assert stored(service, upload_id) == {}


def test_a_dataset_is_made_of_an_upload_and_again_gives_the_same(me: Owner) -> None:
    csv = b"x,label\n1,a\n2,b\n"
    body = {"name": "of-upload", "upload": complete(me, csv, "d.csv")}
    first = me.client.post("/v1/datasets", json=body)
    assert first.status_code == 202, first.text
    assert (first.json()["bytes"], first.json()["version"]) == (len(csv), 1)
    assert first.json()["sha256"] == hashlib.sha256(csv).hexdigest()
    assert me.client.post("/v1/datasets", json=body).status_code == 200


def test_a_dataset_of_an_upload_that_is_not_complete_is_422_that_says_so(me: Owner) -> None:
    upload_id = begin(me)
    send(me, upload_id, 0, DATA[:10])
    reply = me.client.post("/v1/datasets", json={"name": "d", "upload": upload_id})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "/upload"
    assert "10 of 100000 bytes" in reply.json()["detail"]


def test_a_dataset_of_an_upload_takes_options_and_keeps_a_file_of_its_own(
    service: RunningService, me: Owner
) -> None:
    upload_id = complete(me, b"words,label\ngood,a\nbad,b\n", "d.csv")
    body = {"name": "t", "upload": upload_id, "format": "text", "options": {"text": "words"}}
    made = me.client.post("/v1/datasets", json=body)
    assert made.status_code == 202, made.text
    assert me.client.delete(f"/v1/uploads/{upload_id}").status_code == 204
    with me.database.read() as session:
        row = session.get_one(Dataset, made.json()["id"])
        assert (row.format, row.options) == ("text", {"text": "words"})
    source = service.settings.resolved_home() / "artifacts" / row.source_key
    assert source.read_bytes() == b"words,label\ngood,a\nbad,b\n"
    assert list((service.settings.scratch() / "spool").glob("*")) == []


def test_whether_another_owner_has_the_same_bytes_nobody_can_tell(service: RunningService, me: Owner) -> None:
    """All of them are taken, and what is answered is what a first sender is answered."""
    first = me.client.post("/v1/datasets", json={"name": "same", "upload": complete(me, DATA)})
    with service.owner() as other:
        again = other.client.post("/v1/datasets", json={"name": "same", "upload": complete(other, DATA)})
        put = other.client.put("/v1/datasets/put", content=DATA)
    assert (first.status_code, again.status_code, put.status_code) == (202, 202, 202)
    told, told_again = (
        {name: value for name, value in reply.json().items() if name not in ("id", "created_at")}
        for reply in (first, again)
    )
    assert told == told_again
    assert first.json()["id"] != again.json()["id"]


def test_an_owner_keeps_so_many_bytes_and_is_told_429_beyond(tmp_path: Path) -> None:
    """Announced ones count at once; another owner's room is their own."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, max_owner_bytes=1_000_000) as service, service.owner() as me:
        upload_id = begin(me, 600_000)
        assert me.client.put("/v1/datasets/d", content=bytes(300_000)).status_code == 202
        refused = [
            me.client.post("/v1/uploads", json={"filename": "f", "length": 100_001}),
            me.client.put("/v1/datasets/e", content=bytes(100_001)),
            me.client.put("/v1/datasets/e", content=iter([bytes(50_000)] * 3)),
            me.client.post("/v1/datasets", data={"name": "e"}, files={"file": ("f", bytes(100_001))}),
        ]
        for reply in refused:
            assert (reply.status_code, reply.json()["code"]) == (429, "over_quota"), reply.text
            assert int(reply.headers["retry-after"]) > 60
        assert list((service.settings.scratch() / "spool").glob("*")) == []
        with service.owner() as other:
            assert other.client.put("/v1/datasets/e", content=bytes(900_000)).status_code == 202
        assert me.client.delete(f"/v1/uploads/{upload_id}").status_code == 204
        assert me.client.put("/v1/datasets/e", content=bytes(700_000)).status_code == 202
        assert me.client.delete("/v1/datasets/d").status_code == 204
        begin(me, 300_000)


def test_what_came_of_a_piece_that_stalled_stays(tmp_path: Path) -> None:
    def stalling() -> Iterator[bytes]:
        yield DATA[:70_000]
        time.sleep(1.5)
        yield DATA[70_000:]

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, chunk_timeout_s=0.3) as service, service.owner() as me:
        upload_id = begin(me)
        headers = PIECE | {"Upload-Offset": "0"}
        reply = me.client.patch(f"/v1/uploads/{upload_id}", content=stalling(), headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (400, "body_timeout")
        assert offset_of(me, upload_id) == 70_000
        assert send(me, upload_id, 70_000, DATA[70_000:]).status_code == 204
        assert stored(service, upload_id) == {"/data": DATA}


def test_bytes_of_uploads_without_a_row_are_collected_and_no_others(
    service: RunningService, me: Owner, tmp_path: Path
) -> None:
    known, whole = begin(me), complete(me)
    send(me, known, 0, DATA[:10])
    storage = open_storage(service.settings.resolved_storage_url(), tmp_path)
    for key in ("uploads/upl_gone/pieces/0-1", "uploads/upl_lost/data"):
        (tmp_path / "file").write_bytes(b"x")
        storage.adopt(key, tmp_path / "file")
    collect(service)
    assert stored(service, "upl_gone") == stored(service, "upl_lost") == {}
    assert len(stored(service, known)) == 1
    assert stored(service, whole) == {"/data": DATA}


def weights(num_classes: int = 3) -> bytes:
    file = io.BytesIO()
    torch.save(models.squeezenet1_1(num_classes=num_classes).state_dict(), file)
    return file.getvalue()


def pretrained(me: Owner, upload_id: str) -> dict[str, object]:
    model = {"type": "squeezenet1_1", "num_classes": 3, "weights": {"upload": upload_id}}
    return me.job(model=model, dataset="i")


@pytest.fixture
def image_dataset(me: Owner) -> None:
    me.dataset("i")
    with me.database.write() as session:
        row = session.scalars(select(Dataset).where(Dataset.owner == me.name, Dataset.name == "i")).one()
        assert row.manifest is not None
        features = row.manifest["features"]
        row.manifest = row.manifest | {
            "features": features | {"x": {"dtype": "float32", "shape": [3, 32, 32]}}
        }
        session.commit()


@pytest.mark.usefixtures("image_dataset")
@pytest.mark.parametrize("route", ["/v1/plans", "/v1/jobs"])
def test_a_job_that_starts_from_an_upload_must_have_it_whole(me: Owner, route: str) -> None:
    for upload_id in ("upl_" + "0" * 32, begin(me)):
        reply = me.client.post(route, json=pretrained(me, upload_id))
        assert reply.status_code == 422, reply.text
        assert reply.json()["errors"][0]["pointer"] == "/model/weights/upload"
    taken = me.client.post(route, json=pretrained(me, complete(me, weights())))
    assert taken.status_code in (200, 202), taken.text


@pytest.mark.usefixtures("image_dataset")
@pytest.mark.parametrize("route", ["/v1/plans", "/v1/jobs"])
def test_an_upload_that_holds_no_weights_is_refused_beside_the_other_errors(me: Owner, route: str) -> None:
    spec = pretrained(me, complete(me)) | {"name": "stats"}
    reply = me.client.post(route, json=spec)
    assert reply.status_code == 422, reply.text
    found = {error["pointer"]: error["code"] for error in reply.json()["errors"]}
    assert found == {"/name": "reserved", "/model/weights/upload": "wrong_weights"}


@pytest.mark.usefixtures("image_dataset")
def test_an_upload_that_is_unknown_is_told_beside_the_other_errors(me: Owner) -> None:
    body = json.dumps(pretrained(me, "upl_" + "0" * 32) | {"name": "stats"})
    for sent in (body, body.replace('"upload"', '"\\u0075pload"')):
        reply = me.client.post("/v1/plans", content=sent, headers={"Content-Type": "application/json"})
        assert [error["pointer"] for error in reply.json()["errors"]] == ["/name", "/model/weights/upload"]


def test_an_upload_too_large_for_a_check_is_not_fetched_for_it(tmp_path: Path) -> None:
    class Storage:
        def fetch(self, key: str) -> Path:
            return tmp_path / key

    def complete_row(name: str, length: int) -> Upload:
        return Upload(id=name, length=length, sha256="0")

    parts: Any = SimpleNamespace(settings=Settings(plan_memory_bytes=1000), storage=Storage())
    rows = [complete_row("a", 751), complete_row("b", 700), complete_row("c", 100), complete_row("d", 50)]
    assert list(paths_of(parts, rows)) == ["b", "d"]


def tokenized(me: Owner, upload_id: str) -> dict[str, object]:
    """A job on a table of text."""
    text = manifest_of({"text": ["so good", "so bad"] * 5, "label": ["yes", "no"] * 5}, ["text"])
    me.dataset("texts")
    with me.database.write() as session:
        query = select(Dataset).where(Dataset.owner == me.name, Dataset.name == "texts")
        for row in session.scalars(query):
            row.manifest = msgspec.to_builtins(text)
        session.commit()
    layers = [
        {"type": "Embedding", "embedding_dim": 2},
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 2},
    ]
    tokenizer = {"type": "Tokenizer", "file": {"upload": upload_id}, "vocab_size": 10}
    return me.job(dataset="texts", model={"type": "Sequential", "layers": layers}, prepare=[tokenizer])


@pytest.mark.parametrize("route", ["/v1/plans", "/v1/jobs"])
def test_a_tokenizer_is_its_owners_and_whole(service: RunningService, me: Owner, route: str) -> None:
    with service.owner() as other:
        for upload_id in (complete(other), begin(me)):
            reply = me.client.post(route, json=tokenized(me, upload_id))
            assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, "unknown_upload")
            assert reply.json()["errors"][0]["pointer"] == "/prepare/0/file/upload"


def tokenizer() -> bytes:
    return Tokenizer(WordLevel({"so": 0, "good": 1, "[UNK]": 2}, unk_token="[UNK]")).to_str().encode()


@pytest.mark.parametrize("route", ["/v1/plans", "/v1/jobs"])
def test_a_file_that_is_no_tokenizer_is_refused_where_it_is_named(me: Owner, route: str) -> None:
    assert me.client.post(route, json=tokenized(me, complete(me, tokenizer()))).status_code in (200, 202)
    reply = me.client.post(route, json=tokenized(me, complete(me)))
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, "bad_tokenizer")
    assert reply.json()["errors"][0]["pointer"] == "/prepare/0/file/upload"


def test_a_tokenizer_stays_while_a_job_that_has_not_ended_reads_it(me: Owner) -> None:
    upload_id = complete(me, tokenizer())
    assert me.client.post("/v1/jobs", json=tokenized(me, upload_id)).status_code == 202
    assert me.client.delete(f"/v1/uploads/{upload_id}").json()["code"] == "upload_in_use"


@pytest.mark.usefixtures("image_dataset")
def test_an_upload_stays_while_a_job_that_has_not_ended_reads_it_and_no_longer(
    service: RunningService, me: Owner
) -> None:
    data = weights()
    upload_id, unread = complete(me, data), complete(me)
    job_id = me.client.post("/v1/jobs", json=pretrained(me, upload_id)).json()["id"]
    assert me.client.delete(f"/v1/uploads/{upload_id}").json()["code"] == "upload_in_use"
    with me.database.write() as session:
        for one in (upload_id, unread):
            session.get_one(Upload, one).expires_at = utc_now() - timedelta(seconds=1)
        session.commit()
    collect(service)
    assert stored(service, unread) == {}
    assert stored(service, upload_id) == {"/data": data}
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    collect(service)
    assert stored(service, upload_id) == {}
    with me.database.read() as session:
        assert session.get(Upload, upload_id) is None
        assert session.get_one(Job, job_id).upload_ids == [upload_id]


def collect(service: RunningService) -> None:
    """What the sweep does every ten minutes, by a service of our own."""

    async def once() -> None:
        database = open_async_database(service.settings.resolved_database_url())
        try:
            storage = open_storage(service.settings.resolved_storage_url(), Path("unused"))
            await collect_expired(database, storage)
            await collect_strays(database, storage)
        finally:
            await database.close()

    asyncio.run(once())


def test_a_piece_without_a_content_type_is_told_so(me: Owner) -> None:
    upload_id = begin(me)
    reply = me.client.patch(f"/v1/uploads/{upload_id}", content=DATA, headers={"Upload-Offset": "0"})
    assert reply.status_code == 415
    assert reply.json()["detail"] == "Expected Content-Type application/offset+octet-stream; none came."


@pytest.mark.parametrize(
    ("body", "came"),
    [
        ({"name": "d"}, "neither"),
        ({"name": "d", "upload": "u", "source": {"type": "torchvision", "dataset": "MNIST"}}, "both"),
    ],
)
def test_a_dataset_is_of_an_upload_or_of_a_source(me: Owner, body: dict[str, Any], came: str) -> None:
    reply = me.client.post("/v1/datasets", json=body)
    assert reply.status_code == 422
    assert reply.json()["detail"] == (
        f"Expected exactly one of upload and source; {came} came. Name the one that the dataset is of."
    )
