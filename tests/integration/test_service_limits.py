"""Beyond what the service answers at once it says so at once, and goes on with the rest."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from torch import nn

from service.open_inference.inference import MAX_BODY_BYTES
from service.room import MAX_BYTES
from tests.injected import until
from tests.running_service import RunningService, run_service

LIMIT = 3


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[RunningService]:
    with run_service(f"sqlite:///{tmp_path / 'm.db'}", tmp_path, max_in_flight=LIMIT) as service:
        yield service


def begin(stack: ExitStack, service: RunningService, key: str, path: str, length: int) -> socket.socket:
    """A request whose body does not come."""
    place = urlsplit(service.url)
    assert place.hostname is not None
    assert place.port is not None
    sent = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
    sent.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return sent


def test_beyond_the_requests_that_are_answered_at_once_the_next_is_503_and_health_is_well(
    narrow: RunningService,
) -> None:
    with narrow.owner() as me, ExitStack() as stack:
        begun = [begin(stack, narrow, me.key, "/v1/models/m/predict", 100) for _ in range(LIMIT)]
        until_refused(me.client, "overloaded")
        assert me.client.get("/health/live").status_code == 200
        for sent in begun:
            sent.close()
        until(lambda: me.client.get("/v1/jobs").status_code == 200, "those who left have made room")


def test_bodies_that_are_announced_to_be_large_are_bounded_together(service: RunningService) -> None:
    """Before any of it is read: what is announced is what there has to be room for."""
    with service.owner() as me, ExitStack() as stack:
        me.version(service.settings, nn.Sequential(nn.Linear(4, 3)))
        begun = [
            begin(stack, service, me.key, "/v2/models/m/infer", MAX_BODY_BYTES)
            for _ in range(MAX_BYTES // MAX_BODY_BYTES + 1)
        ]
        # Whichever of them came last.
        refused, _, _ = select.select(begun, [], [], 30)
        reply = refused[0].recv(4096).lower()
        assert reply.startswith(b"http/1.1 503")
        assert b"\r\nretry-after: 1\r\n" in reply
        assert me.client.get("/v1/jobs").status_code == 200


def until_refused(client: httpx2.Client, code: str) -> None:
    def is_refused() -> bool:
        reply = client.get("/v1/jobs")
        if reply.status_code != 503:
            return False
        assert reply.json()["code"] == code
        assert reply.headers["retry-after"] == "1"
        return True

    until(is_refused, "the next request is refused")
