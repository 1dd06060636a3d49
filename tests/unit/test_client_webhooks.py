"""Webhooks through the client and the command line, against a real server on loopback."""

import json

import pytest

from modelyard import Client, errors
from modelyard.cli.app import run
from modelyard.specs import WebhookEvent
from tests.unit.scripted_service import AT, Answer, ScriptedService, problem

ROUTE = "/v1/webhooks"
HOOK = {
    "id": "wh_1", "url": "https://hooks.example.com/", "events": ["job.failed"], "state": "enabled",
    "created_at": AT, "later": 1,
}  # fmt: skip
DEAD = {
    "id": "msg_1", "type": "job.failed", "state": "dead", "attempts": 10, "data": {"id": "job_1"},
    "created_at": AT, "status": 500, "error": "answered 500: no 2xx", "next_at": None, "finished_at": AT,
}  # fmt: skip


def test_create_gives_the_secret_and_is_sent_once(client: Client, service: ScriptedService) -> None:
    service.on("POST", ROUTE, Answer(201, {**HOOK, "secret": "whsec_a"}))
    made = client.webhooks.create("https://hooks.example.com/", [WebhookEvent.JOB_FAILED])
    assert (made.id, made.secret) == ("wh_1", "whsec_a")
    assert service.requests[0].json() == {"url": "https://hooks.example.com/", "events": ["job.failed"]}
    service.on("POST", ROUTE, problem(503, "unavailable", "in a moment", Retry_After="0"))
    with pytest.raises(errors.Unavailable):
        client.webhooks.create("https://hooks.example.com/", ["job.failed"])
    assert len(service.requests) == 2


def test_dead_letters_are_listed_and_replayed(client: Client, service: ScriptedService) -> None:
    service.on("GET", f"{ROUTE}/wh_1/deliveries", Answer(200, {"items": [DEAD], "next": None}))
    service.on("POST", f"{ROUTE}/wh_1/replay", Answer(202, {"replayed": 3}))
    (dead,) = client.webhooks.deliveries("wh_1", state="dead")
    assert (dead.data, dead.status) == ({"id": "job_1"}, 500)
    assert client.webhooks.replay("wh_1").replayed == 3
    client.webhooks.replay("wh_1", "msg_1")
    assert service.requests[0].query["state"] == "dead"
    assert [request.json() for request in service.requests[1:]] == [{}, {"delivery": "msg_1"}]


def test_the_command_line_has_all_of_it(service: ScriptedService, capfd: pytest.CaptureFixture[str]) -> None:
    def cli(*tokens: str) -> str:
        assert run(["--url", service.url, "--key", "k", "webhooks", *tokens]) == 0
        return capfd.readouterr().out

    service.on("POST", ROUTE, Answer(201, {**HOOK, "secret": "whsec_a"}))
    service.on("GET", ROUTE, Answer(200, {"items": [HOOK], "next": None}))
    service.on("GET", f"{ROUTE}/wh_1/deliveries", Answer(200, {"items": [DEAD], "next": None}))
    service.on("POST", f"{ROUTE}/wh_1/replay", Answer(202, {"replayed": 1}))
    service.on("DELETE", f"{ROUTE}/wh_1", Answer(204))
    assert "secret: whsec_a" in cli("create", "https://hooks.example.com/", "job.failed")
    cli("create", "https://hooks.example.com/")
    sent = [request.json() for request in service.requests_for("POST", ROUTE)]
    assert [one["events"] for one in sent] == [["job.failed"], [*WebhookEvent]]  # type: ignore[index] # an object
    assert cli("list").split("\t")[:3] == ["wh_1", "enabled", "job.failed"]
    assert cli("deliveries", "wh_1", "--state", "dead").split("\t")[2:5] == ["job_1", "dead", "10"]
    assert json.loads(cli("deliveries", "wh_1", "--json"))[0]["id"] == "msg_1"
    assert cli("replay", "wh_1", "msg_1") == "1 to be sent again\n"
    assert cli("delete", "wh_1") == "deleted wh_1\n"
