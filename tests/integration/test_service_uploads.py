"""`/v1/uploads` over real sockets on both databases."""

import asyncio
import hashlib
import io
import json
import random
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx2
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
from service.collection import collect_expired
from service.from_upload import paths_of
from tests.prepared import manifest_of
from tests.running_service import Owner, RunningService

DATA = random.Random(0).randbytes(100_000)
PIECE = {"Content-Type": "application/offset+octet-stream"}


def begin(me: Owner, length: int = len(DATA), filename: str = "weights.pt") -> str:
    reply = me.client.post("/v1/uploads", json={"filename": filename, "length": length})
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/v1/uploads/{reply.json()['id']}"
    assert (reply.json()["offset"], reply.json()["length"]) == (0, length)
    return str(reply.json()["id"])


def send(me: Owner, upload_id: str, offset: int, data: bytes) -> httpx2.Response:
    headers = PIECE | {"Upload-Offset": str(offset)}
    return me.client.patch(f"/v1/uploads/{upload_id}", content=data, headers=headers)


def offset_of(me: Owner, upload_id: str) -> int:
    reply = me.client.head(f"/v1/uploads/{upload_id}")
    assert reply.status_code == 200
    return int(reply.headers["upload-offset"])


def row_of(me: Owner, upload_id: str) -> Upload:
    with me.database.read() as session:
        return session.get_one(Upload, upload_id)


def stored(service: RunningService, upload_id: str) -> dict[str, bytes]:
    storage = open_storage(service.settings.resolved_storage_url(), Path("unused"))
    prefix = f"uploads/{upload_id}"
    return {key.removeprefix(prefix): storage.fetch(key).read_bytes() for key in storage.list(prefix)}


def complete(me: Owner, data: bytes = DATA, filename: str = "weights.pt") -> str:
    upload_id = begin(me, len(data), filename)
    assert send(me, upload_id, 0, data).status_code == 204
    return upload_id


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


def test_a_piece_for_another_place_is_409_with_the_true_offset(me: Owner) -> None:
    upload_id = begin(me)
    send(me, upload_id, 0, DATA[:1000])
    for wrong in (0, 999, 1001):
        reply = send(me, upload_id, wrong, DATA[wrong : wrong + 10])
        assert (reply.status_code, reply.json()["code"]) == (409, "upload_offset")
        assert reply.headers["upload-offset"] == "1000"
    assert offset_of(me, upload_id) == 1000


def test_more_than_was_announced_is_413_and_none_of_it_is_kept(me: Owner) -> None:
    upload_id = begin(me, 100)
    assert send(me, upload_id, 0, b"x" * 101).status_code == 413
    assert offset_of(me, upload_id) == 0


def test_an_upload_that_breaks_off_fifty_times_arrives_whole(service: RunningService, me: Owner) -> None:
    """Cut at places of a seeded generator. What the service had read by then stays."""
    upload_id, places = begin(me), random.Random(1)
    for _ in range(50):
        offset = offset_of(me, upload_id)
        cut_off(service, me, upload_id, offset, DATA[offset : offset + places.randrange(1, 2000)])
    offset = offset_of(me, upload_id)
    assert 0 < offset < len(DATA)
    while (reply := send(me, upload_id, offset, DATA[offset:])).status_code == 409:
        offset = int(reply.headers["upload-offset"])  # a broken piece was still on its way
    assert reply.status_code == 204
    assert stored(service, upload_id) == {"/data": DATA}


def cut_off(service: RunningService, me: Owner, upload_id: str, offset: int, data: bytes) -> None:
    """Announces all that is left, sends `data`, and leaves."""
    host, port = urlsplit(service.url).hostname, urlsplit(service.url).port
    head = (
        f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {me.key}\r\n"
        f"Content-Type: {PIECE['Content-Type']}\r\nUpload-Offset: {offset}\r\n"
        f"Content-Length: {len(DATA) - offset}\r\n\r\n"
    )
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + data)
        time.sleep(0.01)  # it reads some of it


def test_of_many_who_bring_the_same_place_one_wins(service: RunningService, me: Owner) -> None:
    upload_id = begin(me, 1000)
    bodies = [bytes([number]) * 1000 for number in range(8)]
    statuses: dict[int, int] = {}
    barrier = threading.Barrier(len(bodies))

    def bring(number: int) -> None:
        with service.client(me.key) as client:
            barrier.wait()
            headers = PIECE | {"Upload-Offset": "0"}
            reply = client.patch(f"/v1/uploads/{upload_id}", content=bodies[number], headers=headers)
        statuses[number] = reply.status_code

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [204] + [409] * 7
    winner = next(number for number, status in statuses.items() if status == 204)
    assert stored(service, upload_id) == {"/data": bodies[winner]}
    assert row_of(me, upload_id).sha256 == hashlib.sha256(bodies[winner]).hexdigest()


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
