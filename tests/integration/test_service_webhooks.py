"""Webhooks through the service: made, told, listed, replayed. No message without its event."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook as ForeignWebhook
from standardwebhooks import WebhookVerificationError
from torch import nn

from core.db.models import Delivery, utc_now
from core.db.statements import jobs
from core.settings import Settings
from modelyard import Client
from modelyard.specs import JobState, WebhookEvent
from service.app import create_app
from service.startup import CannotStart
from tests.receiver import Receiver, receiving, until
from tests.running_service import Owner, RunningService, run_on_both

EVERYTHING = [str(event) for event in WebhookEvent]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """One that may reach this machine's receivers."""
    with run_on_both(request, tmp_path_factory.mktemp("home"), webhook_allow="127.0.0.0/8") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def client(service: RunningService, me: Owner) -> Iterator[Client]:
    with Client(service.url, me.key) as one:
        yield one


def ended_job(me: Owner, state: JobState = JobState.SUCCEEDED) -> str:
    me.dataset()
    job_id = str(me.post_job()["id"])
    me.claim(job_id)
    me.move(job_id, state)
    return job_id


def test_a_job_that_ended_is_told_with_a_signature_that_a_foreign_library_takes(
    me: Owner, client: Client, receiver: Receiver
) -> None:
    made = client.webhooks.create(receiver.url, EVERYTHING)
    job_id = ended_job(me)
    (message,) = receiver.wait_for(1)
    said = ForeignWebhook(made.secret).verify(message.body, message.headers)
    event = me.client.get(f"/v1/jobs/{job_id}/events").json()["items"][-1]
    assert said["type"] == "job.succeeded"
    assert said["data"] == {"id": job_id, "name": "m", "state": "succeeded", "seq": event["seq"]}
    assert message.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        ForeignWebhook(made.secret).verify(message.body + b" ", message.headers)
    until(lambda: [d.state for d in client.webhooks.deliveries(made.id)] == ["delivered"])
    (delivery,) = client.webhooks.deliveries(made.id)
    assert (delivery.id, delivery.attempts, delivery.status, delivery.error) == (message.id, 1, 204, None)


def test_the_pages_own_example_verifies_what_came_and_nothing_else(
    me: Owner, client: Client, receiver: Receiver
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    written: dict[str, Any] = {}
    exec(example, written)
    verify = written["verify"]
    secret = client.webhooks.create(receiver.url, EVERYTHING).secret
    ended_job(me, JobState.FAILED)
    (message,) = receiver.wait_for(1)
    verify(secret, message.headers, message.body)
    late = {**message.headers, "webhook-timestamp": str(int(message.headers["webhook-timestamp"]) - 301)}
    for wrong in (
        (secret, message.headers, message.body + b"\n"),
        (secret, {**message.headers, "webhook-id": f"msg_{'0' * 32}"}, message.body),
        (secret, late, message.body),
        ("whsec_" + "A" * 43 + "=", message.headers, message.body),
    ):
        with pytest.raises(ValueError, match=r"signature|old"):
            verify(*wrong)


def test_the_page_names_every_event() -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    assert set(re.findall(r"`([a-z]+\.[a-z]+)`", page.partition("## What comes")[0])) == set(WebhookEvent)


def test_neither_secret_nor_url_is_in_the_log(
    me: Owner, client: Client, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.statuses = [500]
    made = client.webhooks.create(f"{receiver.url}/token-in-the-path", EVERYTHING)
    ended_job(me)
    until(lambda: any(d.error for d in client.webhooks.deliveries(made.id)))
    said = "".join(capfd.readouterr())
    assert made.id in said, "it is named where it failed"
    assert made.secret.removeprefix("whsec_") not in said
    assert "token-in-the-path" not in said
    assert str(receiver.port) not in said


def test_versions_and_aliases_are_told_to_those_who_asked_for_them(
    service: RunningService, me: Owner, client: Client, receiver: Receiver
) -> None:
    client.webhooks.create(receiver.url, ["version.registered", "version.rejected", "alias.moved"])
    client.webhooks.create(f"{receiver.url}/jobs", ["job.failed"])
    version = me.version(service.settings, nn.Linear(4, 3))
    me.version(service.settings, nn.Linear(4, 3), state="rejected")
    client.models.set_alias("m", "production", version)
    client.models.delete_alias("m", "production")
    told = {m.said["type"]: m.said["data"] for m in receiver.wait_for(4)}
    assert {m.path for m in receiver.messages} == {"/hook"}
    assert told["version.registered"]["version"] == version
    assert told["version.rejected"]["version"] == version + 1
    moves = [m.said["data"] for m in receiver.messages if m.said["type"] == "alias.moved"]
    assert {(move["kind"], move["from"], move["to"]) for move in moves} == {
        ("set", None, version),
        ("delete", version, None),
    }
    assert {move["id"] for move in moves} == {"m@production"}


def test_what_was_rolled_back_is_not_told_and_what_was_committed_has_its_row(
    me: Owner, client: Client, receiver: Receiver
) -> None:
    made = client.webhooks.create(receiver.url, EVERYTHING)
    me.dataset()
    lost, kept = (str(me.post_job()["id"]) for _ in range(2))
    with me.database.write() as session:
        session.add(jobs.move(session.scalars(jobs.lock_job(lost)).one(), JobState.CANCELLED, "x", utc_now()))
        session.flush()
        assert _rows(session, made.id) == 1
        session.rollback()
    with me.database.write() as session:
        session.add(jobs.move(session.scalars(jobs.lock_job(kept)).one(), JobState.CANCELLED, "x", utc_now()))
        session.flush()
        assert _rows(session, made.id) == 1
        session.commit()
    assert [m.said["data"]["id"] for m in receiver.wait_for(1)] == [kept]
    assert [d.data["id"] for d in client.webhooks.deliveries(made.id)] == [kept]


def test_the_secret_is_shown_once(me: Owner, client: Client, receiver: Receiver) -> None:
    made = client.webhooks.create(receiver.url, ["job.failed", "job.failed"])
    assert made.secret.startswith("whsec_")
    assert made.events == ["job.failed"]
    for path in ("/v1/webhooks", f"/v1/webhooks/{made.id}", f"/v1/webhooks/{made.id}/deliveries"):
        assert "whsec" not in me.client.get(path).text
        assert made.secret[6:] not in me.client.get(path).text
    assert [one.id for one in client.webhooks.list()] == [made.id]
    assert client.webhooks.get(made.id).state == "enabled"


def test_another_owners_webhook_is_not_there(service: RunningService, client: Client) -> None:
    made = client.webhooks.create("https://hooks.example.com/", EVERYTHING)
    with service.owner() as other:
        asked = [
            other.client.get(f"/v1/webhooks/{made.id}"),
            other.client.get(f"/v1/webhooks/{made.id}/deliveries"),
            other.client.post(f"/v1/webhooks/{made.id}/replay"),
            other.client.delete(f"/v1/webhooks/{made.id}"),
        ]
        assert [reply.status_code for reply in asked] == [404] * 4
        assert other.client.get("/v1/webhooks").json()["items"] == []
    assert client.webhooks.get(made.id).id == made.id


def test_reading_does_not_make_webhooks(service: RunningService) -> None:
    with service.owner("read") as reader:
        body = {"url": "https://hooks.example.com/", "events": EVERYTHING}
        assert reader.client.post("/v1/webhooks", json=body).status_code == 403
        assert reader.client.get("/v1/webhooks").status_code == 200


def test_a_deleted_webhook_is_told_nothing_more(me: Owner, client: Client, receiver: Receiver) -> None:
    gone = client.webhooks.create(f"{receiver.url}/gone", EVERYTHING)
    client.webhooks.create(receiver.url, EVERYTHING)
    client.webhooks.delete(gone.id)
    ended_job(me)
    receiver.wait_for(1)
    assert me.client.get(f"/v1/webhooks/{gone.id}/deliveries").status_code == 404
    assert [m.path for m in receiver.messages] == ["/hook"]


def test_410_disables_and_a_replay_enables_and_sends_the_dead_again(
    me: Owner, client: Client, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    made = client.webhooks.create(receiver.url, EVERYTHING)
    ended_job(me)
    first = receiver.wait_for(1)[0]
    until(lambda: client.webhooks.get(made.id).state == "disabled")
    ended_job(me)  # told to nobody
    assert [d.state for d in client.webhooks.deliveries(made.id, "dead")] == ["dead"]
    receiver.statuses = [200]
    assert client.webhooks.replay(made.id).replayed == 1
    again = receiver.wait_for(2)[1]
    assert (again.id, again.body) == (first.id, first.body)
    assert client.webhooks.get(made.id).state == "enabled"
    until(lambda: [d.state for d in client.webhooks.deliveries(made.id)] == ["delivered"])


def test_one_message_is_replayed_by_its_name(me: Owner, client: Client, receiver: Receiver) -> None:
    made = client.webhooks.create(receiver.url, EVERYTHING)
    ended_job(me)
    first = receiver.wait_for(1)[0]
    until(lambda: [d.state for d in client.webhooks.deliveries(made.id)] == ["delivered"])
    assert client.webhooks.replay(made.id).replayed == 0
    assert client.webhooks.replay(made.id, first.id).replayed == 1
    assert receiver.wait_for(2)[1].id == first.id
    unknown = me.client.post(f"/v1/webhooks/{made.id}/replay", json={"delivery": f"msg_{'0' * 32}"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://hooks.example.com/", "https_required"),
        ("https://user:password@hooks.example.com/", "invalid_url"),
        ("https://hooks.example.com/#here", "invalid_url"),
        ("https://hooks.example.com:0/", "invalid_url"),
        ("https://hooks.example.com:99999/", "invalid_url"),
        ("https://ho oks.example.com/", "invalid_url"),
        ("https://hooks.example.com\\@10.0.0.1/", "invalid_url"),
        ("https://höoks.example.com/", "invalid_url"),
        ("ftp://hooks.example.com/", "invalid_url"),
        ("https:///path", "invalid_url"),
        ("https://[::1/", "invalid_url"),
        ("https://10.0.0.1/", "not_public"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_its_place(me: Owner, url: str, code: str) -> None:
    reply = me.client.post("/v1/webhooks", json={"url": url, "events": EVERYTHING})
    assert reply.status_code == 422
    assert (reply.json()["code"], reply.json()["errors"][0]["pointer"]) == (code, "/url")


def test_events_are_of_the_list(me: Owner) -> None:
    for events in ([], ["job.exploded"], "job.failed"):
        body = {"url": "https://hooks.example.com/", "events": events}
        assert me.client.post("/v1/webhooks", json=body).status_code == 422


def test_an_owner_has_so_many_webhooks_at_most(me: Owner) -> None:
    body = {"url": "https://hooks.example.com/", "events": EVERYTHING}
    replies = [me.client.post("/v1/webhooks", json=body) for _ in range(21)]
    assert [reply.status_code for reply in replies] == [201] * 20 + [409]
    assert replies[-1].json()["code"] == "too_many_webhooks"


def test_a_network_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="MODELYARD_WEBHOOK_ALLOW"):
        create_app(Settings(home=tmp_path, webhook_allow="10.0.0.0/33"))


def _rows(session: object, webhook_id: str) -> int:
    found = session.scalars(select(Delivery).where(Delivery.webhook_id == webhook_id))  # type: ignore[attr-defined]
    return len(found.all())
