"""Where the client goes, and with which key."""

from pathlib import Path

import pytest

from modelyard import Client, errors
from modelyard.address import resolve_key
from tests.unit.scripted_service import (
    Answer,
    ScriptedService,
)


def test_url_and_key_come_from_the_environment(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_URL", service.url + "/")
    monkeypatch.setenv("MODELYARD_KEY", "mdy_env")
    service.on("GET", "/health/ready", Answer(200, {"status": "ready"}))
    with Client() as client:
        assert client.health() == {"status": "ready"}
    assert service.requests[0].headers["authorization"] == "Bearer mdy_env"


def test_on_loopback_the_admin_key_is_read_from_the_home(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").write_text("mdy_admin\n")
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.delenv("MODELYARD_KEY", raising=False)
    service.on("GET", "/health/ready", Answer(200, {}))
    with Client(service.url) as client:
        client.health()
    assert service.requests[0].headers["authorization"] == "Bearer mdy_admin"


def test_the_admin_key_is_never_sent_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").write_text("mdy_admin\n")
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.delenv("MODELYARD_KEY", raising=False)
    assert resolve_key(None, "http://models.example.org:8000") is None
    assert resolve_key(None, "http://127.0.0.1.example.org") is None
    assert resolve_key(None, "http://[::1]:8000") == "mdy_admin"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "nonsense"])
def test_what_is_no_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="expected the service's URL"):
        Client(url)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_mean_another_route_is_refused(client: Client, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        client.datasets.get(name)


def test_a_name_with_a_slash_stays_one_name(client: Client, service: ScriptedService) -> None:
    with pytest.raises(errors.NotFound):
        client.models.get("a/versions?x=1")
    assert service.requests[0].path == "/v1/models/a%2Fversions%3Fx%3D1"
