"""Keys in the client and on the command line."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard import Client, errors
from modelyard.cli.app import run
from tests.unit.scripted_service import AT, Answer, ScriptedService, problem

ID = "key_0190"


def a_key(**changes: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "name": "ci",
        "owner": "o",
        "scopes": ["read"],
        "created_at": AT,
        "key": "mdy_x",
    } | changes


def an_entry(number: int) -> dict[str, Any]:
    return {
        "id": f"aud_{number}", "at": AT, "owner": "o", "key": ID, "name": "ci", "action": "POST /v1/jobs",
        "target": "/v1/jobs", "made": [f"job_{number}"], "request_id": "r", "address": "10.0.0.1",
    }  # fmt: skip


def test_a_key_is_made_with_what_was_given_and_no_more(client: Client, service: ScriptedService) -> None:
    service.on("POST", "/v1/keys", Answer(201, a_key()))
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    assert client.keys.create("ci", ["read"], expires_at=ends).key == "mdy_x"
    assert service.requests[0].json() == {
        "name": "ci",
        "scopes": ["read"],
        "expires_at": "2030-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    "make", [lambda client: client.keys.create("ci", ["read"]), lambda client: client.keys.rotate(ID)]
)
def test_what_makes_a_key_is_sent_once(
    client: Client, service: ScriptedService, make: Callable[[Client], object]
) -> None:
    for path in ("/v1/keys", f"/v1/keys/{ID}/rotate"):
        service.on("POST", path, problem(503, "database_unavailable", "later", Retry_After="1"))
    with pytest.raises(errors.Unavailable):
        make(client)
    assert len(service.requests) == 1


def test_rotation_says_how_long_the_old_key_works(client: Client, service: ScriptedService) -> None:
    service.on("POST", f"/v1/keys/{ID}/rotate", Answer(201, a_key(id="key_2", rotated_from=ID)))
    assert client.keys.rotate(ID, overlap_s=0).rotated_from == ID
    assert service.requests[0].json() == {"overlap_s": 0}


def test_the_command_prints_the_key_alone_so_that_it_can_be_piped_on(
    service: ScriptedService, capfd: pytest.CaptureFixture[str]
) -> None:
    service.on("POST", "/v1/keys", Answer(201, a_key()))
    assert (
        run(["--url", service.url, "--key", "k", "keys", "create", "ci", "read", "train", "--days", "1"]) == 0
    )
    said = capfd.readouterr()
    assert said.out == "mdy_x\n"
    assert ID in said.err
    assert service.requests[0].json()["scopes"] == ["read", "train"]
    assert "expires_at" in service.requests[0].json()


def test_keys_are_listed_without_keys_and_the_audit_with_what_was_made(
    service: ScriptedService, capfd: pytest.CaptureFixture[str]
) -> None:
    service.on("GET", "/v1/keys", Answer(200, {"items": [a_key(key=None)], "next": None}))
    service.on("GET", "/v1/audit", Answer(200, {"items": [an_entry(1), an_entry(2)], "next": None}))
    service.on("DELETE", f"/v1/keys/{ID}", Answer(204, None))
    assert run(["--url", service.url, "--key", "k", "keys", "list"]) == 0
    assert capfd.readouterr().out.startswith(f"{ID}\tci\to\tread\t")
    assert run(["--url", service.url, "--key", "k", "audit", "--key-id", ID]) == 0
    assert "job_1" in capfd.readouterr().out
    assert service.requests[-1].query["key"] == ID
    assert run(["--url", service.url, "--key", "k", "keys", "revoke", ID]) == 0
    assert capfd.readouterr().out == f"revoked {ID}\n"
