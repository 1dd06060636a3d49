"""The scripted service and a client that talks to it."""

from collections.abc import Iterator

import pytest

from modelyard import Client
from tests.unit.scripted_service import ScriptedService


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedService]:
    """A real server on loopback; clients come back to it sooner than they would in earnest."""
    monkeypatch.setattr("modelyard.transport.calls.BACKOFF_S", 0.01)
    with ScriptedService().running() as running:
        yield running


@pytest.fixture
def client(service: ScriptedService) -> Iterator[Client]:
    with Client(service.url, "mdy_secret", timeout_s=5) as client:
        yield client
