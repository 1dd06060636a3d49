"""Uploads in pieces, against a real server on loopback that takes them, breaks off, and forgets nothing."""

import hashlib
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from modelyard import Client, errors
from modelyard.resources import datasets, pieces
from tests.unit.scripted_service import AT, Answer, Request, ScriptedService, a_dataset, problem

ID = "upl_" + "0" * 32
HERE = f"/v1/uploads/{ID}"
DATA = bytes(range(256)) * 40


class Receiver:
    """What the service does with pieces; of those numbered in `breaks` it takes half, and breaks off."""

    def __init__(self, service: ScriptedService, breaks: AbstractSet[int] = frozenset()) -> None:
        self.data = b""
        self.pieces = 0
        self._breaks = breaks
        service.on("POST", "/v1/uploads", self.begin)
        service.on("HEAD", HERE, lambda _: Answer(200, None, self._headers()))
        service.on("PATCH", HERE, self.take)

    def begin(self, request: Request) -> Answer:
        assert request.json() == {"filename": "weights.pt", "length": len(DATA)}
        return Answer(201, {"id": ID, "offset": 0, "length": len(DATA), "expires_at": AT})

    def take(self, request: Request) -> Answer:
        assert request.headers["content-type"] == "application/offset+octet-stream"
        if int(request.headers["upload-offset"]) != len(self.data):
            return problem(409, "upload_offset", "elsewhere", Upload_Offset=str(len(self.data)))
        self.pieces += 1
        if self.pieces in self._breaks:
            self.data += request.body[: len(request.body) // 2]
            return Answer(200, None, breaks_off=True)
        self.data += request.body
        return Answer(204, None, self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Upload-Offset": str(len(self.data)), "Upload-Length": str(len(DATA)), "Upload-Expires": AT}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    monkeypatch.setattr("modelyard.transport.calls.BACKOFF_S", 0.01)
    path = tmp_path / "weights.pt"
    path.write_bytes(DATA)
    return path


def test_a_file_goes_in_pieces_and_progress_is_told(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    receiver = Receiver(service)
    seen: list[tuple[int, int | None]] = []
    upload = client.uploads.create(weights, on_progress=lambda *said: seen.append(said))
    assert hashlib.sha256(receiver.data).digest() == hashlib.sha256(DATA).digest()
    assert (upload.id, upload.offset, upload.length) == (ID, len(DATA), len(DATA))
    assert seen == [(n, len(DATA)) for n in (3000, 6000, 9000, len(DATA))]


@pytest.mark.parametrize("breaks", [{1}, {2, 3}, {1, 3, 5, 7, 9, 11, 13}])
def test_a_broken_connection_is_taken_up_where_it_broke(
    client: Client, service: ScriptedService, weights: Path, breaks: set[int]
) -> None:
    receiver = Receiver(service, breaks)
    client.uploads.create(weights)
    assert receiver.data == DATA
    sent = sum(len(request.body) for request in service.requests_for("PATCH", HERE))
    assert len(DATA) < sent <= len(DATA) + len(breaks) * 3000


def test_an_interrupted_upload_is_resumed_by_its_id(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    receiver = Receiver(service)
    receiver.data = DATA[:5000]
    assert client.uploads.resume(ID, weights).offset == len(DATA)
    assert receiver.data == DATA
    assert service.requests_for("POST", "/v1/uploads") == []


def test_another_file_is_not_sent_into_an_upload(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    Receiver(service)
    with pytest.raises(errors.InvalidArgument, match="was begun with, got 3"):
        client.uploads.resume(ID, b"abc")
    assert service.requests_for("PATCH", HERE) == []


def test_a_service_that_takes_nothing_ends_the_upload_with_its_error(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    Receiver(service)
    service.on("PATCH", HERE, problem(503, "storage_full", "no room", Retry_After="0"))
    with pytest.raises(errors.Unavailable, match="no room"):
        client.uploads.create(weights)
    assert len(service.requests_for("PATCH", HERE)) == 1 + 3


def test_the_upload_that_was_begun_is_told_before_its_first_byte(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    Receiver(service)
    told: list[tuple[str, int]] = []
    pieces_so_far = lambda: len(service.requests_for("PATCH", HERE))  # noqa: E731
    client.uploads.create(weights, on_begin=lambda upload: told.append((upload.id, pieces_so_far())))
    assert told == [(ID, 0)]


# A dataset that is large goes the same way


@pytest.fixture
def made(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "IN_PIECES_BYTES", len(DATA))
    service.on("POST", "/v1/datasets", Answer(202, a_dataset(state="processing")))
    service.on("DELETE", HERE, Answer(204, None))


@pytest.mark.usefixtures("made")
def test_a_large_dataset_goes_in_pieces_and_its_upload_is_given_back(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    receiver = Receiver(service, breaks={2})
    pushed = client.datasets.push("d", weights, format="table", options={"a": 1}, wait=False)
    assert receiver.data == DATA
    (asked,) = service.requests_for("POST", "/v1/datasets")
    assert asked.json() == {"name": "d", "upload": ID, "format": "table", "options": {"a": 1}}
    assert pushed.name == "mnist"
    assert (service.requests[-1].method, service.requests[-1].path) == ("DELETE", HERE)


@pytest.mark.usefixtures("made")
def test_a_dataset_is_pushed_though_its_upload_could_not_be_given_back(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    Receiver(service)
    service.on("DELETE", HERE, problem(409, "upload_in_use", "a job reads it"))
    assert client.datasets.push("d", weights, wait=False).version == 1


@pytest.mark.usefixtures("made")
def test_an_interrupted_push_goes_on_with_its_upload(
    client: Client, service: ScriptedService, weights: Path
) -> None:
    receiver = Receiver(service)
    receiver.data = DATA[:5000]
    client.datasets.push("d", weights, wait=False, resume=ID)
    assert receiver.data == DATA
    assert service.requests_for("POST", "/v1/uploads") == []


def test_a_small_dataset_goes_in_one_request(client: Client, service: ScriptedService, weights: Path) -> None:
    service.on("PUT", "/v1/datasets/d", Answer(202, a_dataset()))
    client.datasets.push("d", weights, wait=False)
    assert [request.method for request in service.requests] == ["PUT"]


def test_an_empty_file_is_refused_before_anything_is_sent(client: Client, service: ScriptedService) -> None:
    with pytest.raises(errors.InvalidArgument, match="got nothing"):
        client.uploads.create(b"")
    assert service.requests == []
