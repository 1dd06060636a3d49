"""Who may do what: keys, scopes, owners, hosts."""

import re
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from core.db.models import Key, utc_now
from core.settings import Settings
from service.app import create_app
from service.auth import OPEN, Scope, undecided_routes
from service.keys import digest_of, new_key
from service.startup import CannotStart
from tests.running_service import Owner, RunningService, run_service

OPENED = ("/health/", "/v2/health/", "/schema")


def test_every_route_names_a_scope_or_is_declared_open(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path)).app
    opened = {
        route.path
        for route in app.routes
        for method, (handler, _) in route.route_handler_map.items()
        if method != "OPTIONS" and handler.opt["scope"] is OPEN
    }
    assert undecided_routes(app) == []
    assert all(path.startswith(OPENED) for path in opened)
    assert len(app.routes) > 20


def test_every_route_but_health_and_schema_refuses_a_request_without_key(service: RunningService) -> None:
    with service.client() as client:
        for route in service.server.config.app.app.routes:
            path = re.sub(r"\{[^}]*\}", "1", route.path)
            for method in route.methods - {"OPTIONS"}:
                reply = client.request(method, path)
                if path.startswith(OPENED):
                    assert reply.status_code in (200, 404), (method, path)
                else:
                    assert reply.status_code == 401, (method, path)
                    assert reply.headers["www-authenticate"] == "Bearer"
                    assert method == "HEAD" or reply.json()["code"] == "unauthenticated"


def test_the_first_start_writes_an_admin_key_that_works(service: RunningService) -> None:
    path = service.settings.resolved_home() / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with service.client(service.admin_key) as client:
        assert client.get("/v1/jobs").status_code == 200


def test_a_second_start_keeps_the_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path) as first:
        key = first.admin_key
    (tmp_path / "admin.key").unlink()
    with run_service(url, tmp_path) as second, second.client(key) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert not (tmp_path / "admin.key").exists()


@pytest.mark.parametrize(
    "key",
    ["mdy_", "secret", "mdy_" + "0" * 22 + "_000000", new_key()[:-1], new_key()],
    ids=["prefix", "no key", "wrong checksum", "cut short", "unknown"],
)
def test_a_wrong_key_is_401(service: RunningService, key: str) -> None:
    with service.client() as client:
        reply = client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code == 401
    assert len(key) < 6 or key not in reply.text


@pytest.mark.parametrize("field", ["revoked_at", "expires_at"])
def test_a_revoked_or_expired_key_is_401(service: RunningService, field: str) -> None:
    key = new_key()
    times = {field: utc_now() - timedelta(seconds=1)}
    with service.database.write() as session:
        row = Key(
            id=key, owner="o", name="n", secret_sha256=digest_of(key), scopes=["admin"], created_at=utc_now()
        )
        row.id = f"key_{field}_{key[4:20]}"
        for name, value in times.items():
            setattr(row, name, value)
        session.add(row)
        session.commit()
    with service.client(key) as client:
        assert client.get("/v1/jobs").status_code == 401


def test_a_key_does_only_what_its_scopes_say(service: RunningService) -> None:
    with service.owner("read") as reader:
        assert reader.client.get("/v1/jobs").status_code == 200
        refused = reader.client.post("/v1/jobs", json={})
        assert refused.status_code == 403
        assert Scope.TRAIN in refused.json()["detail"]
        assert reader.client.put("/v1/datasets/d", content=b"x").status_code == 403
        assert reader.client.post("/v1/models/m/predict", json={}).status_code == 403
        assert reader.client.put("/v1/models/m/aliases/a", json={"version": 1}).status_code == 403


def test_another_owners_things_are_404(service: RunningService, me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    with service.owner() as other:
        for method, path in [
            ("GET", "/v1/datasets/d"),
            ("GET", "/v1/datasets/d/versions"),
            ("GET", "/v1/datasets/d/versions/1"),
            ("GET", "/v1/datasets/d/samples"),
            ("DELETE", "/v1/datasets/d"),
            ("GET", f"/v1/jobs/{job_id}"),
            ("GET", f"/v1/jobs/{job_id}/events"),
            ("GET", f"/v1/jobs/{job_id}/metrics"),
            ("GET", f"/v1/jobs/{job_id}/checkpoints"),
            ("POST", f"/v1/jobs/{job_id}/cancel"),
            ("DELETE", f"/v1/jobs/{job_id}"),
        ]:
            assert other.client.request(method, path).status_code == 404, (method, path)
        assert other.client.get("/v1/jobs").json()["items"] == []
        assert other.client.get("/v1/datasets").json()["items"] == []


def test_a_foreign_host_header_is_refused(service: RunningService) -> None:
    with service.client() as client:
        reply = client.get("/health/live", headers={"Host": "evil.example:80"})
    assert reply.status_code == 400
    assert reply.json()["code"] == "host_not_allowed"


def test_keys_off_means_the_default_owner_with_all_scopes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with run_service(url, tmp_path, auth="off") as running, running.client() as client:
        assert client.get("/v1/jobs").status_code == 200
        assert not (tmp_path / "admin.key").exists()


def test_keys_off_is_refused_beyond_loopback(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="loopback"):
        create_app(Settings(home=tmp_path, auth="off", host="0.0.0.0"))
    create_app(Settings(home=tmp_path, auth="off", host="0.0.0.0", insecure=True))
    create_app(Settings(home=tmp_path, auth="off", host="127.0.0.2"))


def test_proxies_that_are_no_networks_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="MODELYARD_TRUSTED_PROXIES"):
        create_app(Settings(home=tmp_path, trusted_proxies="10.0.0.0/8, proxy.example"))
