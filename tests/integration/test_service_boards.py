"""`GET /v1/jobs/{id}/tensorboard.zip`: the newest archive, for its owner, as long as the job is there."""

import hashlib
from pathlib import Path

import pytest

from core import boards
from core.storage import Storage
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService


@pytest.fixture
def storage(service: RunningService) -> Storage:
    stored: Storage = service.server.config.app.parts.storage
    return stored


@pytest.fixture
def job_id(me: Owner) -> str:
    me.dataset()
    return str(me.post_job()["id"])


def put(storage: Storage, folder: Path, key: str, content: bytes) -> None:
    (folder / "archive").write_bytes(content)
    storage.adopt(key, folder / "archive")


def test_the_newest_archive_is_given_with_its_hash(
    me: Owner, storage: Storage, job_id: str, tmp_path: Path
) -> None:
    for fence, number, content in ((2, 5, b"newest"), (1, 9, b"older"), (2, 4, b"old")):
        put(storage, tmp_path, boards.archive_key(job_id, fence, number), content)
    reply = me.client.get(f"/v1/jobs/{job_id}/tensorboard.zip")
    assert reply.status_code == 200
    assert reply.content == b"newest"
    assert reply.headers["content-type"] == "application/zip"
    assert reply.headers["etag"] == f'"{hashlib.sha256(b"newest").hexdigest()}"'
    # Another may follow at this address.
    assert reply.headers["cache-control"] == "private, no-cache"
    again = me.client.get(reply.request.url, headers={"If-None-Match": reply.headers["etag"]})
    assert again.status_code == 304
    part = me.client.get(reply.request.url, headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.content) == (206, b"new")


def test_a_job_without_an_archive_says_when_there_will_be_one(me: Owner, job_id: str) -> None:
    reply = me.client.get(f"/v1/jobs/{job_id}/tensorboard.zip")
    assert (reply.status_code, reply.json()["code"]) == (404, "no_board")
    assert "MODELYARD_TENSORBOARD" in reply.json()["detail"]


def test_a_job_of_another_is_not_found(
    service: RunningService, storage: Storage, job_id: str, tmp_path: Path
) -> None:
    put(storage, tmp_path, boards.archive_key(job_id, 1, 1), b"mine")
    with service.owner("read") as other:
        reply = other.client.get(f"/v1/jobs/{job_id}/tensorboard.zip")
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


def test_a_deleted_job_leaves_no_archive(me: Owner, storage: Storage, job_id: str, tmp_path: Path) -> None:
    put(storage, tmp_path, boards.archive_key(job_id, 1, 1), b"mine")
    me.move(job_id, JobState.CANCELLED)
    assert me.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert boards.archives(storage, job_id) == []
