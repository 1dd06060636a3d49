"""Two owners, every route: with the other's ids it answers as if they were invented, and does the same work.

The routes are read from the app itself. One that is new fails here until this page says what its parameters
and its body are.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import structlog
import torch
from sqlalchemy import event
from torch import nn

from core import ids
from core.db.models import BatchPrediction, Upload, utc_now
from service.auth import OPEN, Scope, decisions
from tests.running_service import Owner, RunningService

pytestmark = [pytest.mark.usefixtures("service_fork_server"), pytest.mark.timeout(300)]

PROBE = "probe"
#: In a path of a made-up name, and in one that is another's.
NAME, NO_NAME = "theirs", "nobody"

#: What is sent so that a route comes as far as looking for what it is asked for.
JSON = {"Content-Type": "application/json"}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/models/{name}/aliases/{alias}"): {"json": {"version": 1}},
    ("POST", "/v1/models/{name}/aliases/{alias}/rollback"): {},
    ("POST", "/v1/models/{model}/predict"): {"json": {"instances": [[0, 0, 0, 0]]}},
    ("POST", "/v1/jobs/{job_id}/fork"): {"json": {"patch": {}}},
    ("POST", "/v1/keys/{key_id}/rotate"): {},
    ("PATCH", "/v1/uploads/{upload_id}"): {
        "content": b"x",
        "headers": {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"},
    },
    ("POST", "/v2/models/{model}/infer"): {"json": {"inputs": []}},
    ("POST", "/v2/models/{model}/versions/{reference}/infer"): {"json": {"inputs": []}},
    ("POST", "/v2/repository/models/{model}/load"): {"json": {}},
    ("POST", "/v2/repository/models/{model}/unload"): {"json": {}},
    # Those that have no path to look for; what their bodies name is below, in `NAMING`.
    ("POST", "/v1/jobs"): {},
    ("POST", "/v1/plans"): {},
    ("POST", "/v1/datasets"): {},
    ("POST", "/v1/uploads"): {},
    ("POST", "/v1/keys"): {},
    ("POST", "/v1/webhooks"): {},
    ("POST", "/v1/webhooks/{webhook_id}/replay"): {},
    ("POST", "/v1/batch-predictions"): {},
    ("POST", "/v2/repository/index"): {},
}

#: They make something of the asker's own under the name.
MAKES = {("PUT", "/v1/datasets/{name}")}

#: Their answer is everybody's.
COMMON = {("GET", "/v1/components"), ("GET", "/v2")}

#: Bodies that name another's things: `{}` stands for a real name or id, and for an invented one.
JOB = {"name": "m", "dataset": "own", "model": {"type": "Sequential", "layers": [{"type": "Linear"}]}}
NAMING: list[tuple[str, str, str, dict[str, Any]]] = [
    ("POST", "/v1/jobs", "name", {**JOB, "dataset": "{}"}),
    ("POST", "/v1/jobs", "name", {**JOB, "dataset": "{}@1"}),
    ("POST", "/v1/plans", "name", {**JOB, "dataset": "{}"}),
    ("POST", "/v1/plans", "upload_id", {**JOB, "model": {"type": "resnet18", "weights": {"upload": "{}"}}}),
    ("POST", "/v1/datasets", "upload_id", {"name": "x", "upload": "{}"}),
    ("POST", "/v1/batch-predictions", "name", {"model": "{}", "dataset": "own", "format": "csv"}),
    ("POST", "/v1/batch-predictions", "name", {"model": "own", "dataset": "{}", "format": "csv"}),
    ("POST", "/v1/batch-predictions", "upload_id", {"model": "own", "upload": "{}", "format": "csv"}),
    ("POST", "/v1/keys", "owner", {"name": "x", "scopes": ["read"], "owner": "{}"}),
]


@dataclass
class World:
    """What an owner has, by the names that routes give to their parameters; and as much that nobody has."""

    owner: Owner
    service: RunningService
    real: dict[str, str] = field(default_factory=dict)
    made_up: dict[str, str] = field(default_factory=dict)

    @property
    def routes(self) -> dict[tuple[str, str], object]:
        return decisions(self.service.server.config.app.app)


@pytest.fixture(scope="module")
def world(service: RunningService) -> Iterator[World]:
    torch.manual_seed(7)
    with service.owner() as owner:
        wait_for_plans(owner)
        owner.version(service.settings, nn.Sequential(nn.Linear(4, 3)), model=NAME)
        owner.dataset(NAME)
        owner.dataset(NAME)
        owner.client.put(f"/v1/models/{NAME}/aliases/production", json={"version": 1})
        version = owner.client.get(f"/v1/models/{NAME}/versions/1").json()
        key = owner.client.post("/v1/keys", json={"name": "k", "scopes": ["read"]}).json()
        hook = {"url": "https://hooks.example.com/", "events": ["job.failed"]}
        webhook = owner.client.post("/v1/webhooks", json=hook).json()
        job = owner.post_job()
        now = utc_now()
        with service.database.write() as session:
            upload = Upload(id=ids.upload_id(), owner=owner.name, filename="f", length=9, offset=0)
            upload.created_at = upload.expires_at = now
            batch = BatchPrediction(
                id=ids.batch_id(), owner=owner.name, state="queued", wanted="run", pool="cpu", model=NAME,
                version=1, version_id=version["id"], format="csv", warnings=[], progress={}, transitions=[],
                is_cleared=False, created_at=now, queued_at=now,
            )  # fmt: skip
            session.add_all([upload, batch])
            session.commit()
            real = {"upload_id": upload.id, "batch_id": batch.id, "key_id": key["id"], "job_id": job["id"]}
            real["webhook_id"] = webhook["id"]
        checkpoints = owner.client.get(f"/v1/jobs/{version['lineage']['job']}/checkpoints").json()["items"]
        real["checkpoint_id"] = checkpoints[0]["id"]
        made_up = {name: one[:-4] + ("0000" if one[-4:] != "0000" else "1111") for name, one in real.items()}
        for values, name in ((real, NAME), (made_up, NO_NAME)):
            values |= {"name": name, "model": name, "alias": "production", "version": "1", "reference": "1"}
        real["owner"], made_up["owner"] = owner.name, NO_NAME
        yield World(owner, service, real, made_up)


@pytest.fixture
def stranger(service: RunningService) -> Iterator[Owner]:
    """Another owner, who may do everything with what is their own."""
    with service.owner(*Scope) as owner:
        yield owner


def wait_for_plans(owner: Owner) -> None:
    """What checks specs loads torch first: beside busy neighbours that takes longer than a request waits."""
    deadline = time.monotonic() + 240
    while True:
        with contextlib.suppress(httpx2.TimeoutException):
            if owner.client.post("/v1/plans", json={"name": "m"}).status_code != 503:
                return
        assert time.monotonic() < deadline, "no spec was checked within 240 s"


def parameters(path: str) -> list[str]:
    return re.findall(r"\{([a-z_]+)", path)


def ask(client: httpx2.Client, method: str, path: str, values: dict[str, str]) -> httpx2.Response:
    missing = [name for name in parameters(path) if name not in values]
    assert not missing, f"say in tests/faults/test_owner_matrix.py what {missing} of {path} is"
    sent = BODIES.get((method, path), {})
    headers = {"X-Request-ID": PROBE, **sent.get("headers", {})}
    url = re.sub(r"\{([a-z_]+)[^}]*\}", lambda found: values[found[1]], path)
    return client.request(method, url, **{**sent, "headers": headers}, timeout=30)


def is_missing(reply: httpx2.Response) -> bool:
    """A 404 that says that there is no such thing, and not that it has no board yet or the like."""
    is_head = reply.request.method == "HEAD"
    return reply.status_code == 404 and (is_head or reply.json()["code"] == "not_found")


def same(reply: httpx2.Response, values: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, without what was asked for."""
    text = reply.text
    for name, value in values.items():
        if name not in ("alias", "version", "reference"):
            text = text.replace(value, f"<{name}>")
    varying = ("date", "content-length")
    headers = {name: value for name, value in reply.headers.items() if name not in varying}
    return reply.status_code, headers, text


@contextlib.contextmanager
def statements(service: RunningService) -> Iterator[list[str]]:
    """What requests with the probe's id ask of the database, but for their own key."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        is_probe = structlog.contextvars.get_contextvars().get("request_id") == PROBE
        is_about_the_key = "keys.secret_sha256 = " in statement or statement.startswith("BEGIN")
        if is_probe and not is_about_the_key:
            seen.append(statement)

    engine = service.server.config.app.parts.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_owner_matrix_every_route_with_another_owners_ids_is_404(world: World, stranger: Owner) -> None:
    asked = 0
    for (method, path), decision in world.routes.items():
        if decision is OPEN or not parameters(path) or (method, path) in MAKES:
            continue
        with statements(world.service) as for_theirs:
            theirs = ask(stranger.client, method, path, world.real)
        with statements(world.service) as for_none:
            none = ask(stranger.client, method, path, world.made_up)
        assert is_missing(theirs), (method, path, theirs.status_code, theirs.text[:300])
        assert same(theirs, world.real) == same(none, world.made_up), (method, path)
        assert for_theirs == for_none, (method, path)  # the same work, so the same time
        assert for_theirs, (method, path)
        asked += 1
    assert asked > 40


def test_owner_matrix_no_list_shows_what_is_another_owners(world: World, stranger: Owner) -> None:
    asked = 0
    for (method, path), decision in world.routes.items():
        if decision is OPEN or parameters(path) or (method, path) in COMMON:
            continue
        if method != "GET" and (method, path) != ("POST", "/v2/repository/index"):
            continue
        shown = ask(stranger.client, method, path, {}).text
        assert not [one for one in world.real.values() if len(one) > 10 and one in shown], (method, path)
        assert f'"{NAME}"' not in shown, (method, path)
        asked += 1
    assert asked >= 8


@pytest.mark.parametrize(("method", "path", "parameter", "body"), NAMING)
def test_owner_matrix_a_body_that_names_another_owners_things_is_answered_as_if_it_named_none(
    world: World, stranger: Owner, method: str, path: str, parameter: str, body: dict[str, Any]
) -> None:
    stranger.version(world.service.settings, nn.Sequential(nn.Linear(4, 3)), model="own")
    stranger.dataset("own")

    def filled(node: Any, value: str) -> Any:
        if isinstance(node, dict):
            return {name: filled(one, value) for name, one in node.items()}
        if isinstance(node, list):
            return [filled(one, value) for one in node]
        return node.replace("{}", value) if isinstance(node, str) else node

    replies = []
    for values in (world.real, world.made_up):
        headers = {"X-Request-ID": PROBE}
        reply = stranger.client.request(method, path, json=filled(body, values[parameter]), headers=headers)
        assert reply.status_code in (403, 404, 422), reply.text
        replies.append(same(reply, values))
    assert replies[0] == replies[1]


def test_owner_matrix_every_route_that_takes_a_body_says_here_which(world: World) -> None:
    """One that is new may name another's things in its body: say so in NAMING."""
    schema = world.owner.client.get("/schema/openapi.json").json()
    taking = {
        (method.upper(), path)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "requestBody" in operation
    }
    assert taking - MAKES == set(BODIES), "say what is sent to it in tests/faults/test_owner_matrix.py"


def test_owner_matrix_what_is_the_same_as_anothers_is_new(world: World, stranger: Owner) -> None:
    """No route tells whether somebody else has the same bytes, or has asked the same before."""
    data = b"x,y\n1,2\n3,4\n"
    headers = {"Idempotency-Key": "the same"}
    asked = {"name": "k", "scopes": ["read"]}
    mine = world.owner.client.put("/v1/datasets/bytes", content=data)
    made = world.owner.client.post("/v1/keys", json=asked, headers=headers).json()
    theirs = stranger.client.put("/v1/datasets/bytes", content=data)
    other = stranger.client.post("/v1/keys", json=asked, headers=headers)
    assert (mine.status_code, theirs.status_code) == (202, 202)
    assert mine.json()["sha256"] == theirs.json()["sha256"]
    assert mine.json()["id"] != theirs.json()["id"]
    assert "idempotency-replayed" not in other.headers
    assert other.json()["id"] != made["id"]
    weights = f"/v1/checkpoints/{world.real['checkpoint_id']}/weights"
    etag = world.owner.client.get(weights).headers["etag"]
    for known in (
        {"If-None-Match": etag},
        {"If-None-Match": '"0"'},
        {"If-Range": etag, "Range": "bytes=0-0"},
    ):
        assert stranger.client.get(weights, headers=known).status_code == 404


def test_owner_matrix_no_key_and_a_key_without_the_scope_get_nothing(world: World) -> None:
    with world.service.client() as nobody:
        for (method, path), decision in world.routes.items():
            if decision is not OPEN:
                assert ask(nobody, method, path, world.real).status_code == 401, (method, path)
    for scope in set(Scope) - {Scope.ADMIN}:
        with world.service.owner(scope) as limited:
            for (method, path), decision in world.routes.items():
                if decision is not OPEN and decision is not scope:
                    reply = ask(limited.client, method, path, world.real)
                    assert reply.status_code == 403, (scope, method, path)


def test_owner_matrix_the_owner_finds_all_of_it(world: World) -> None:
    """So that what the others are refused is really there. Last: it deletes."""
    routes = sorted(world.routes, key=lambda route: (route[0] == "DELETE", -len(route[1])))
    for method, path in routes:
        if world.routes[method, path] is OPEN or not parameters(path) or (method, path) in MAKES:
            continue
        reply = ask(world.owner.client, method, path, world.real)
        assert not is_missing(reply), (method, path, reply.text[:300])
