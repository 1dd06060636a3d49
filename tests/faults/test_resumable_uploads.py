"""Uploads that break off, that two send at once, whose service is killed: what was acknowledged is there, and
what arrives is what was sent."""

import hashlib
import random
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

import migrations
from core.db.models import Dataset
from modelyard import Client
from modelyard.resources import datasets, pieces
from tests.breaking_proxy import BreakingProxy
from tests.running_service import Owner, RunningService
from tests.service_process import line_of, service_process
from tests.uploads import DATA, PIECE, begin, offset_of, row_of, send, stored


def test_resumable_upload_that_breaks_off_fifty_times_arrives_whole(
    service: RunningService, me: Owner
) -> None:
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
    assert row_of(me, upload_id).sha256 == hashlib.sha256(DATA).hexdigest()


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


def test_resumable_upload_for_another_place_is_409_with_the_true_offset(me: Owner) -> None:
    upload_id = begin(me)
    send(me, upload_id, 0, DATA[:1000])
    for wrong in (0, 999, 1001):
        reply = send(me, upload_id, wrong, DATA[wrong : wrong + 10])
        assert (reply.status_code, reply.json()["code"]) == (409, "upload_offset")
        assert reply.headers["upload-offset"] == "1000"
    assert offset_of(me, upload_id) == 1000


def test_resumable_upload_brought_by_many_at_once_has_one_winner(service: RunningService, me: Owner) -> None:
    upload_id = begin(me, 1000)
    bodies = [bytes([number]) * 1000 for number in range(8)]
    answers: dict[int, httpx2.Response] = {}
    barrier = threading.Barrier(len(bodies))

    def bring(number: int) -> None:
        with service.client(me.key) as client:
            barrier.wait()
            headers = PIECE | {"Upload-Offset": "0"}
            answers[number] = client.patch(
                f"/v1/uploads/{upload_id}", content=bodies[number], headers=headers
            )

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers.values()) == [204] + [409] * 7
    assert {answer.headers["upload-offset"] for answer in answers.values()} == {"1000"}
    winner = next(number for number, answer in answers.items() if answer.status_code == 204)
    assert stored(service, upload_id) == {"/data": bodies[winner]}
    assert row_of(me, upload_id).sha256 == hashlib.sha256(bodies[winner]).hexdigest()


def test_resumable_upload_by_the_client_through_fifty_broken_connections_is_a_dataset(
    service: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = "".join(f"{number},{number % 3}\n" for number in range(300_000))
    (tmp_path / "big.csv").write_text("x,label\n" + rows)
    data = (tmp_path / "big.csv").read_bytes()
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(datasets, "IN_PIECES_BYTES", 1_000_000)
    monkeypatch.setattr("modelyard.transport.calls.BACKOFF_S", 0.01)
    proxy = BreakingProxy(urlsplit(service.url).port or 0, breaks=50, largest_bytes=120_000)
    seen: list[int] = []
    with proxy.running(), Client(proxy.url, me.key, max_retries=20) as client:
        pushed = client.datasets.push(
            "big",
            tmp_path / "big.csv",
            options={},
            wait=False,
            on_progress=lambda sent, _total: seen.append(sent),
        )
    assert proxy.num_broken > 25  # the others had nothing left to send
    assert (pushed.sha256, pushed.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    with me.database.read() as session:
        source_key = session.get_one(Dataset, pushed.id).source_key
    assert (service.settings.resolved_home() / "artifacts" / source_key).read_bytes() == data


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_resumable_upload_outlives_the_kill_of_its_service(tmp_path: Path) -> None:
    """What was acknowledged before the kill is there after it."""
    migrations.upgrade(f"sqlite:///{tmp_path / 'modelyard.db'}")
    upload_id, offset = "", 0
    for until in (60_000, len(DATA)):
        with service_process(tmp_path, MODELYARD_AUTH="off") as process:
            url = line_of(process, "listening")["url"]
            with httpx2.Client(base_url=url, timeout=30) as client:
                if not upload_id:
                    asked = {"filename": "d.bin", "length": len(DATA)}
                    upload_id = client.post("/v1/uploads", json=asked).json()["id"]
                here = f"/v1/uploads/{upload_id}"
                assert client.head(here).headers["upload-offset"] == str(offset)
                while offset < until:
                    piece = DATA[offset : min(offset + 7_000, until)]
                    headers = PIECE | {"Upload-Offset": str(offset)}
                    assert client.patch(here, content=piece, headers=headers).status_code == 204
                    offset += len(piece)
            process.kill()
    assert (tmp_path / "artifacts" / "uploads" / upload_id / "data").read_bytes() == DATA
