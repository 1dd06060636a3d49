"""Keys over the wire: made, shown once, rotated, revoked; who changed what; what an owner may use."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.db.models import IdempotentReply, Key
from core.settings import Settings
from service.app import create_app
from service.auth import Scope, decisions
from service.keys import PATTERN
from service.quick import INFER_ROUTE, INFER_VERSION_ROUTE, NEEDED, PREDICT_ROUTE
from tests.running_service import Owner, RunningService, run_service

pytestmark = pytest.mark.usefixtures("service_fork_server")


@pytest.fixture
def operator(service: RunningService) -> Iterator[httpx2.Client]:
    with service.client(service.admin_key) as client:
        yield client


def made(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/keys", json={"name": "ci", "scopes": ["read"], **body})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def status_with(service: RunningService, key: str, path: str = "/v1/jobs") -> int:
    with service.client(key) as client:
        return client.get(path).status_code


def in_time(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def test_a_new_key_is_shown_once_and_works(service: RunningService, me: Owner) -> None:
    reply = me.client.post("/v1/keys", json={"name": "ci", "scopes": ["predict", "read"]})
    assert reply.status_code == 201
    assert reply.headers["cache-control"] == "no-store"
    key = reply.json()
    assert reply.headers["location"] == f"/v1/keys/{key['id']}"
    assert PATTERN.fullmatch(key["key"])
    assert (key["owner"], key["scopes"]) == (me.name, ["read", "predict"])
    assert status_with(service, key["key"]) == 200
    shown = me.client.get(reply.headers["location"]).json()
    listed = me.client.get("/v1/keys").json()["items"]
    assert shown == listed[0] == {**key, "key": None}
    with service.database.read() as session:
        assert key["key"].encode() not in (session.get_one(Key, key["id"]).secret_sha256)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes"),
        ({"name": "A b"}, "/name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"key": "mdy_mine"}, "/key"),
    ],
)
def test_a_key_that_can_not_be_meant_is_refused(me: Owner, body: dict[str, Any], pointer: str) -> None:
    reply = me.client.post("/v1/keys", json={"name": "ci", "scopes": ["read"], **body})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"].startswith(pointer)


def test_a_repeated_request_makes_one_key_and_does_not_show_it_again(
    service: RunningService, me: Owner
) -> None:
    body, headers = {"name": "ci", "scopes": ["read"]}, {"Idempotency-Key": "one"}
    first = me.client.post("/v1/keys", json=body, headers=headers)
    again = me.client.post("/v1/keys", json=body, headers=headers)
    assert again.status_code == 201
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == {**first.json(), "key": None}
    with service.database.read() as session:
        stored = session.get_one(IdempotentReply, (me.name, "POST /v1/keys", "one"))
        assert first.json()["key"] not in str(stored.reply)


def test_a_revoked_key_is_refused_at_once_by_who_revoked_it(service: RunningService, me: Owner) -> None:
    key = made(me.client)
    with service.client(key["key"]) as holder:
        assert holder.get("/v1/jobs").status_code == 200
        assert me.client.delete(f"/v1/keys/{key['id']}").status_code == 204
        assert holder.get("/v1/jobs").status_code == 401
    revoked = me.client.get(f"/v1/keys/{key['id']}").json()["revoked_at"]
    assert revoked is not None
    assert me.client.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert me.client.get(f"/v1/keys/{key['id']}").json()["revoked_at"] == revoked


def test_a_revoked_key_is_refused_by_another_process_within_two_seconds(
    service: RunningService, me: Owner, tmp_path: Path
) -> None:
    key = made(me.client)
    url = service.settings.resolved_database_url()
    with run_service(url, tmp_path) as other, other.client(key["key"]) as holder:
        assert holder.get("/v1/jobs").status_code == 200
        me.client.delete(f"/v1/keys/{key['id']}")
        revoked = time.monotonic()
        while holder.get("/v1/jobs").status_code == 200:
            assert time.monotonic() - revoked < 2
            time.sleep(0.02)
        assert holder.get("/v1/jobs").status_code == 401


def test_an_open_stream_ends_where_its_key_is_revoked(service: RunningService, me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    key = made(me.client)
    headers = {"Accept": "text/event-stream"}
    with (
        service.client(key["key"]) as holder,
        holder.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as reply,
    ):
        lines = reply.iter_lines()
        while next(lines) != "event: progress":
            pass
        me.client.delete(f"/v1/keys/{key['id']}")
        me.say(job_id, "state", secret="told after the key was revoked")
        assert "told after" not in "\n".join(lines)


def test_rotation_makes_a_key_beside_the_old_one_which_then_ends(service: RunningService, me: Owner) -> None:
    old = made(me.client, expires_at=in_time(days=30))
    began = time.monotonic()
    reply = me.client.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_s": 3})
    rotated = time.monotonic()
    assert reply.status_code == 201
    new = reply.json()
    assert new["rotated_from"] == old["id"]
    assert {name: new[name] for name in ("name", "owner", "scopes")} == {
        name: old[name] for name in ("name", "owner", "scopes")
    }
    lives = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert abs(lives - timedelta(days=30)) < timedelta(minutes=1)
    assert status_with(service, old["key"]) == status_with(service, new["key"]) == 200
    while status_with(service, old["key"]) == 200:
        assert time.monotonic() - rotated < 5
        time.sleep(0.05)
    assert time.monotonic() - began > 3
    assert status_with(service, new["key"]) == 200
    assert me.client.post(f"/v1/keys/{old['id']}/rotate").json()["code"] == "key_ended"


def test_rotation_without_overlap_ends_the_old_key_at_once(service: RunningService, me: Owner) -> None:
    old = made(me.client)
    assert status_with(service, old["key"]) == 200
    new = me.client.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_s": 0}).json()
    assert (status_with(service, old["key"]), status_with(service, new["key"])) == (401, 200)


def test_an_admin_makes_keys_for_their_own_owner_and_the_operator_for_all(
    service: RunningService, me: Owner, operator: httpx2.Client
) -> None:
    refused = me.client.post("/v1/keys", json={"name": "x", "scopes": ["read"], "owner": "default"})
    assert (refused.status_code, refused.json()["code"]) == (403, "another_owner")
    key = made(operator, owner=me.name)
    assert key["owner"] == me.name
    assert me.client.get(f"/v1/keys/{key['id']}").status_code == 200
    owners = {row["owner"] for row in operator.get("/v1/keys?limit=200").json()["items"]}
    assert {"default", me.name} <= owners
    assert {row["owner"] for row in me.client.get("/v1/keys?limit=200").json()["items"]} == {me.name}


def test_the_last_key_of_the_operator_can_be_rotated_and_not_revoked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path) as service, service.client(service.admin_key) as operator:
        (first,) = operator.get("/v1/keys").json()["items"]
        made(operator)  # one that reads does not count
        refused = operator.delete(f"/v1/keys/{first['id']}")
        assert (refused.status_code, refused.json()["code"]) == (409, "last_admin_key")
        new = operator.post(f"/v1/keys/{first['id']}/rotate", json={"overlap_s": 0}).json()
        assert operator.get("/v1/keys").status_code == 401
        with service.client(new["key"]) as rotated:
            assert rotated.get("/v1/keys").status_code == 200
    (tmp_path / "admin.key").unlink()
    with run_service(url, tmp_path) as again:  # one that works is there
        assert not (tmp_path / "admin.key").exists()
        with again.database.write() as session:
            session.get_one(Key, new["id"]).revoked_at = datetime.now(UTC)
            session.commit()
    with run_service(url, tmp_path) as saved:  # whoever holds the machine gets in again
        assert status_with(saved, saved.admin_key) == 200


def test_every_change_is_written_down_with_who_asked_for_it(service: RunningService, me: Owner) -> None:
    me.dataset()
    key = made(me.client, scopes=["train", "read"])
    with service.client(key["key"]) as trainer:
        job = trainer.post("/v1/jobs", json=me.job(), headers={"X-Request-ID": "mine"}).json()
        trainer.get(f"/v1/jobs/{job['id']}")
        trainer.post("/v1/jobs", json={})  # refused: changes nothing
        trainer.post(f"/v1/jobs/{job['id']}/cancel")
        trainer.post(f"/v1/jobs/{job['id']}/cancel")  # has ended: changes nothing
        trainer.delete(f"/v1/jobs/{job['id']}")
        trainer.put("/v1/datasets/new", content=b"x,y\n1,2\n")
    me.client.delete(f"/v1/keys/{key['id']}")
    entries = me.client.get(f"/v1/audit?key={key['id']}").json()["items"]
    assert [(entry["action"], entry["target"]) for entry in reversed(entries)] == [
        ("POST /v1/jobs", "/v1/jobs"),
        ("POST /v1/jobs/{job_id}/cancel", f"/v1/jobs/{job['id']}/cancel"),
        ("DELETE /v1/jobs/{job_id}", f"/v1/jobs/{job['id']}"),
        ("PUT /v1/datasets/{name}", "/v1/datasets/new"),
    ]
    first = entries[-1]
    assert first["made"] == [job["id"]]
    assert (first["owner"], first["name"], first["request_id"]) == (me.name, "ci", "mine")
    assert first["address"] == "127.0.0.1"
    revoked, created = me.client.get("/v1/audit").json()["items"][:: len(entries) + 1]
    assert (revoked["action"], revoked["target"]) == ("DELETE /v1/keys/{key_id}", f"/v1/keys/{key['id']}")
    assert (created["action"], created["made"]) == ("POST /v1/keys", [key["id"]])


def test_the_audit_is_read_in_pages_and_shows_no_other_owners_changes(
    me: Owner, operator: httpx2.Client
) -> None:
    ids = [made(me.client)["id"] for _ in range(5)]
    read: list[str] = []
    after = ""
    while True:
        page = me.client.get(f"/v1/audit?limit=2{after}").json()
        read += [entry["made"][0] for entry in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert read == ids[::-1]
    newest = operator.get("/v1/audit?limit=1").json()["items"][0]
    assert (newest["owner"], newest["made"]) == (me.name, [ids[-1]])


def test_what_is_rolled_back_is_not_in_the_audit(
    service: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("after the commit was asked for")

    key = made(me.client)
    before = me.client.get("/v1/audit").json()["items"]
    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.orm.session.SessionTransaction.commit", breaks)
        assert me.client.delete(f"/v1/keys/{key['id']}").status_code == 500
    assert me.client.get("/v1/audit").json()["items"] == before
    assert me.client.get(f"/v1/keys/{key['id']}").json()["revoked_at"] is None


def test_keys_uploads_and_work_that_waits_are_bounded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with (
        run_service(url, tmp_path, max_keys=3, max_queued=2, max_uploads=2) as service,
        service.owner() as me,
    ):
        me.dataset()
        kept = [made(me.client) for _ in range(2)]
        refused = me.client.post("/v1/keys", json={"name": "ci", "scopes": ["read"]})
        assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
        assert int(refused.headers["retry-after"]) > 0
        me.client.delete(f"/v1/keys/{kept[0]['id']}")
        made(me.client)
        jobs = [me.post_job() for _ in range(2)]
        refused = me.client.post("/v1/jobs", json=me.job())
        assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
        me.client.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
        me.post_job()
        announced = {"filename": "f", "length": 9}
        uploads = [me.client.post("/v1/uploads", json=announced).json() for _ in range(2)]
        refused = me.client.post("/v1/uploads", json=announced)
        assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
        me.client.delete(f"/v1/uploads/{uploads[0]['id']}")
        assert me.client.post("/v1/uploads", json=announced).status_code == 201
        with service.owner() as other:
            other.dataset()
            other.post_job()
            assert other.client.post("/v1/uploads", json=announced).status_code == 201


def test_a_page_of_another_site_changes_nothing_though_keys_are_off(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, auth="off") as service, service.client() as browser:
        sent = {
            "content": b'{"name": "x", "scopes": ["admin"]}',
            "headers": {"Origin": "http://evil.example"},
        }
        for origin in (
            "http://evil.example",
            "null",
            "http://evil.example:8000",
            "http://127.0.0.1.evil",
            "http://127.0.0.1",
        ):
            sent["headers"] = {"Origin": origin}
            reply = browser.post("/v1/keys", **sent)
            assert (reply.status_code, reply.json()["code"]) == (403, "cross_origin"), origin
        sent["headers"] = {"Origin": service.url}
        assert browser.post("/v1/keys", **sent).status_code == 201
        assert browser.get("/v1/jobs", headers={"Origin": "http://evil.example"}).status_code == 200


def test_no_other_site_may_read_and_no_cookie_is_ever_set(service: RunningService, me: Owner) -> None:
    origin = {"Origin": "http://evil.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    for reply in (
        me.client.get("/v1/jobs", headers=origin),
        me.client.get("/schema", headers=origin),
        me.client.options("/v1/jobs", headers=preflight),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "set-cookie" not in reply.headers
    with service.client() as client:
        assert client.get("/v1/jobs", headers={"Cookie": f"key={me.key}"}).status_code == 401


def test_the_quick_way_of_a_prediction_asks_for_what_the_usual_one_does(tmp_path: Path) -> None:
    decided = decisions(create_app(Settings(home=tmp_path)).app)
    for route in (PREDICT_ROUTE, INFER_ROUTE, INFER_VERSION_ROUTE):
        assert decided["POST", route] is NEEDED is Scope.PREDICT


def test_the_page_of_keys_says_what_every_route_asks_for(tmp_path: Path) -> None:
    decided = decisions(create_app(Settings(home=tmp_path)).app)
    by_path: dict[str, list[str]] = {}
    for (method, path), decision in sorted(decided.items()):
        by_path.setdefault(path, []).append(f"{method} `{decision}`")
    expected = {f"| `{path}` | {', '.join(said)} |" for path, said in by_path.items()}
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text()
    written = {line for line in page.splitlines() if line.startswith("| `/")}
    assert written == expected
