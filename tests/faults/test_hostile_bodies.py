"""Bodies that flood, that trickle, that nest: refused within bounds, and nobody else notices."""

import asyncio
import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from service.app import create_app
from service.spool import PIECE_TIMEOUTS
from tests.memory import MIB, grows_less_than
from tests.running_service import Owner, RunningService, run_service
from tests.uploads import begin, offset_of

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """What a body says has nothing to do with which database it is."""
    home = tmp_path_factory.mktemp("home")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as running:
        yield running


# A text field without end


FIELD = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n'
FLOOD_MIB = 300


@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "chunked"])
def test_text_field_flood_is_413_and_takes_no_memory(
    service: RunningService, me: Owner, is_announced: bool
) -> None:
    size = f"Content-Length: {len(FIELD) + FLOOD_MIB * MIB}" if is_announced else "Transfer-Encoding: chunked"
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {me.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{size}\r\n\r\n"
    )
    with grows_less_than(30 * MIB), _connected(service) as connection:
        connection.sendall(head.encode())
        pieces = [FIELD, *[b"x" * MIB] * FLOOD_MIB]
        sent = _send_until_answered(connection, pieces, is_chunked=not is_announced)
        answer = _rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 413"), answer[:300]
    assert b"application/problem+json" in answer
    assert sent < 30 * MIB
    assert me.client.get("/v1/datasets").json()["items"] == []


def _connected(service: RunningService) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def _send_until_answered(connection: socket.socket, pieces: list[bytes], *, is_chunked: bool) -> int:
    """How many bytes went before the service had something to say."""
    sent = 0
    for piece in pieces:
        if select.select([connection], [], [], 0)[0]:
            break
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
        try:
            connection.sendall(framed)
        except (BrokenPipeError, ConnectionResetError):
            break
        sent += len(piece)
    return sent


def _rest_of(connection: socket.socket) -> bytes:
    """Whoever is cut off while sending may find the connection reset behind the answer."""
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            read += data
    return read


# Two hundred that trickle

CHUNK_TIMEOUT_S = 0.5
TRICKLERS = 200
#: As one byte a second is to thirty seconds.
PAUSE_S = 0.25


async def test_slow_body_of_two_hundred_clients_is_cut_and_others_are_served(tmp_path: Path) -> None:
    """No pause of theirs is as long as the read timeout; the least pace of a piece ends them all."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with (
        run_service(url, tmp_path, chunk_timeout_s=CHUNK_TIMEOUT_S) as service,
        service.owner() as me,
    ):
        uploads = [begin(me, 10 * MIB) for _ in range(TRICKLERS // 2)]
        targets = [f"PATCH /v1/uploads/{upload_id}" for upload_id in uploads]
        targets += [f"PUT /v1/datasets/slow{number}" for number in range(TRICKLERS // 2)]
        started = time.monotonic()
        tricklers = [asyncio.create_task(_trickle(service, me, target)) for target in targets]
        headers = {"Authorization": f"Bearer {me.key}"}
        async with httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=30) as other:
            latencies_s = await _ask_while(other, tricklers)
            pushed = await other.put("/v1/datasets/mine", content=bytes(3 * MIB))
        answers = await asyncio.gather(*tricklers)
        took_s = time.monotonic() - started
        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 400 Bad Request"}
        assert all(b'"code":"body_timeout"' in answer for answer in answers)
        assert PIECE_TIMEOUTS * CHUNK_TIMEOUT_S < took_s < 4 * PIECE_TIMEOUTS * CHUNK_TIMEOUT_S
        assert pushed.status_code == 202
        latencies_s.sort()
        print(f"{len(latencies_s)} others: median {latencies_s[len(latencies_s) // 2] * 1000:.0f} ms")
        assert latencies_s[len(latencies_s) // 2] < 0.25
        # What came slowly came: an upload goes on from there.
        assert all(offset_of(me, upload_id) > 0 for upload_id in uploads)
        assert not list((service.settings.scratch() / "spool").glob("*"))


async def _trickle(service: RunningService, me: Owner, target: str) -> bytes:
    """Sends a byte now and then until it is answered; the answer."""
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"{target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {me.key}\r\n"
        "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
        f"Content-Length: {10 * MIB}\r\n\r\n"
    )
    writer.write(head.encode())
    answer = asyncio.create_task(_read_all(reader))
    while not answer.done():
        writer.write(b"x")
        await asyncio.wait({answer}, timeout=PAUSE_S)
    writer.close()
    return answer.result()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    """As `_rest_of`."""
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(65_536):
            read += data
    return read


async def _ask_while(client: httpx2.AsyncClient, others: list["asyncio.Task[bytes]"]) -> list[float]:
    latencies_s = []
    while not all(other.done() for other in others):
        started = time.monotonic()
        assert (await client.get("/v1/jobs")).status_code == 200
        latencies_s.append(time.monotonic() - started)
        await asyncio.sleep(0.02)
    return latencies_s


# JSON that is no spec

NESTED = {
    "lists": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"name":' * 100_000 + b"1" + b"}" * 100_000,
    "unclosed": b'{"instances":' + b"[" * 100_000,
}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"name": "a", "name": "b"}', "malformed"),
        (b'{"dataset": 1e400}', "malformed"),
        (b'{"dataset": NaN}', "malformed"),
        (b'{"dataset": "\\ud800"}', "malformed"),
        (b"[" * 100_000 + b"]" * 100_000, "malformed"),
        (b'{"metadata":' * 100_000 + b"1" + b"}" * 100_000, "too_large"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])
def test_json_depth_and_other_loose_json_in_a_spec_is_refused(
    me: Owner, path: str, content: bytes, code: str
) -> None:
    reply = me.client.post(path, content=content, headers=JSON)
    assert reply.status_code == {"malformed": 400, "too_large": 413}[code], reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.json()["code"] == code
    assert me.client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize("nested", NESTED)
def test_json_depth_is_the_clients_fault_on_every_route_that_takes_json(
    service: RunningService, me: Owner, nested: str
) -> None:
    asked = 0
    for method, path in _routes_with_bodies(service):
        reply = me.client.request(method, path, content=NESTED[nested], headers=JSON)
        assert 400 <= reply.status_code < 500, (method, path, reply.text[:300])
        assert "json" in reply.headers["content-type"]
        asked += 1
    assert asked > 10


def _routes_with_bodies(service: RunningService) -> Iterator[tuple[str, str]]:
    paths = create_app(service.settings).app.openapi_schema.to_schema()["paths"]
    for template, methods in json.loads(json.dumps(paths)).items():
        for method, operation in methods.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                names = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
                path = template
                for name in names:
                    path = path.replace("{" + name + "}", "1" if name == "version" else "m")
                yield method.upper(), path
