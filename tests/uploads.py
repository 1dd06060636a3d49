"""An upload in pieces, as any HTTP client sends it."""

import random
from pathlib import Path

import httpx2

from core.db.models import Upload
from core.storage import open_storage
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


def complete(me: Owner, data: bytes = DATA, filename: str = "weights.pt") -> str:
    upload_id = begin(me, len(data), filename)
    assert send(me, upload_id, 0, data).status_code == 204
    return upload_id


def row_of(me: Owner, upload_id: str) -> Upload:
    with me.database.read() as session:
        return session.get_one(Upload, upload_id)


def stored(service: RunningService, upload_id: str) -> dict[str, bytes]:
    storage = open_storage(service.settings.resolved_storage_url(), Path("unused"))
    prefix = f"uploads/{upload_id}"
    return {key.removeprefix(prefix): storage.fetch(key).read_bytes() for key in storage.list(prefix)}
