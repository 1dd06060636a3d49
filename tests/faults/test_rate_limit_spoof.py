"""Who asks too often is one and the same, whatever is written in the headers; and no key is ever said."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

import migrations
from core.db.engines import open_database
from core.db.models import Key, utc_now
from service.keys import _checksum, digest_of, new_key
from tests.running_service import NO_BROKER, Owner, RunningService, run_service

pytestmark = pytest.mark.usefixtures("service_fork_server")

#: Of the services below: so slow that nothing comes in while a test asks.
SLOW = {"requests_per_s": 0.05, "requests_burst": 10, "wrong_keys_per_s": 0.5}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    home = tmp_path_factory.mktemp("slow")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home, **SLOW) as running:
        yield running


def disguises(number: int, key: str, port: int) -> dict[str, str]:
    """Headers in which the same client with the same key looks like another one each time."""
    scheme = ("Bearer", "bearer", "BEARER", "BeArEr")[number % 4]
    host = ("127.0.0.1", "localhost", "LOCALHOST", "[::1]")[number % 4]
    return {
        "Authorization": f"{scheme} {key}",
        "Host": f"{host}:{port}",
        "X-Forwarded-For": f"10.0.{number}.1, 10.1.{number}.1",
        "X-Real-IP": f"10.2.{number}.1",
        "Forwarded": f"for=10.3.{number}.1",
        "User-Agent": f"agent {number}",
    }


def port_of(service: RunningService) -> int:
    return urlsplit(service.url).port or 0


def test_rate_limit_spoof_one_key_has_one_bucket_in_every_disguise(slow: RunningService) -> None:
    with slow.owner() as me, slow.client() as client:
        basic = base64.b64encode(f"x:{me.key}".encode()).decode()
        replies = [
            client.get("/v1/jobs", headers=disguises(number, me.key, port_of(slow))) for number in range(20)
        ]
        replies.append(client.get("/v2", headers={"Authorization": f"Basic {basic}"}))
        quick = client.post(
            "/v1/models/m/predict", json={"instances": [1]}, headers=disguises(1, me.key, port_of(slow))
        )
        replies.append(quick)
    assert [reply.status_code for reply in replies] == [200] * 10 + [429] * 12
    for reply in replies[10:]:
        assert int(reply.headers["retry-after"]) >= 1
    assert {reply.json()["code"] for reply in replies[10:]} == {"rate_limited"}
    assert quick.headers["content-type"] == "application/problem+json"
    with slow.owner() as other:
        assert other.client.get("/v1/jobs").status_code == 200


def test_rate_limit_spoof_wrong_keys_are_counted_by_where_they_come_from(tmp_path: Path) -> None:
    home, url = tmp_path, f"sqlite:///{tmp_path / 'modelyard.db'}"
    with (
        run_service(url, home, wrong_keys_per_s=0.5) as service,
        service.owner() as me,
        service.client() as client,
    ):
        assert me.client.get("/v1/jobs").status_code == 200
        refused = []
        for number in range(12):
            key = (new_key(), me.key.swapcase(), me.key[:-1])[number % 3]
            refused.append(client.get("/v1/jobs", headers=disguises(number, key, port_of(service))))
        assert [reply.status_code for reply in refused] == [401] * 5 + [429] * 7
        assert refused[-1].json()["code"] == "too_many_wrong_keys"
        assert int(refused[-1].headers["retry-after"]) >= 1
        assert me.client.get("/v1/jobs").status_code == 200  # in use, so known: not locked out
        assert client.get("/health/live").status_code == 200


def test_rate_limit_spoof_behind_a_trusted_proxy_each_client_is_its_own(tmp_path: Path) -> None:
    home, url = tmp_path, f"sqlite:///{tmp_path / 'modelyard.db'}"
    settings = {"wrong_keys_per_s": 0.5, "trusted_proxies": "127.0.0.0/8"}
    with run_service(url, home, **settings) as service, service.client() as client:

        def wrong(forwarded: str) -> int:
            headers = {"Authorization": f"Bearer {new_key()}", "X-Forwarded-For": forwarded}
            return client.get("/v1/jobs", headers=headers).status_code

        assert [wrong(f"6.6.6.{number}, 10.0.0.1") for number in range(7)] == [401] * 5 + [429] * 2
        assert wrong("10.0.0.2") == 401


def test_rate_limit_spoof_two_processes_share_one_bucket(tmp_path: Path, broker_url: str) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    shared = {"requests_per_s": 0.2, "requests_burst": 10, "broker_url": broker_url}
    with (
        run_service(url, tmp_path / "one", **shared) as one,
        run_service(url, tmp_path / "two", **shared) as two,
        one.owner() as me,
        two.client(me.key) as elsewhere,
    ):
        assert [me.client.get("/v1/jobs").status_code for _ in range(8)] == [200] * 8
        time.sleep(0.4)  # they tell each other ten times a second
        answers = [elsewhere.get("/v1/jobs").status_code]  # the first there: its bucket is a guess
        time.sleep(0.4)
        answers += [elsewhere.get("/v1/jobs").status_code for _ in range(5)]
        assert answers.count(200) <= 3
        assert answers[-1] == 429


def test_rate_limit_spoof_without_redis_each_process_limits_by_itself(slow: RunningService) -> None:
    assert slow.settings.broker_url == NO_BROKER
    with slow.owner() as me:
        began = time.monotonic()
        assert [me.client.get("/v1/jobs").status_code for _ in range(12)] == [200] * 10 + [429] * 2
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1"])
@pytest.mark.parametrize("path", ["/health/live", "/v1/jobs", "/v1/models/m/predict", "/v2", "/schema"])
def test_rate_limit_spoof_a_host_that_is_not_ours_is_400(slow: RunningService, host: str, path: str) -> None:
    method = "POST" if path.endswith("predict") else "GET"
    with slow.client(slow.admin_key) as client:
        forwarded = {"Host": host, "X-Forwarded-Host": "127.0.0.1", "Content-Type": "application/json"}
        reply = client.request(method, path, headers=forwarded)
    assert reply.status_code == 400
    assert reply.json()["code"] == "host_not_allowed"


@pytest.mark.parametrize("twice", ["Host: 127.0.0.1", "Host: evil.example", "Authorization: Bearer x"])
def test_rate_limit_spoof_a_header_that_decides_comes_once(slow: RunningService, twice: str) -> None:
    head = f"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {slow.admin_key}\r\n"
    with socket.create_connection(("127.0.0.1", port_of(slow)), timeout=30) as raw:
        raw.sendall(f"{head}{twice}\r\nConnection: close\r\n\r\n".encode())
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")


# No key is ever said


class Said:
    """Every answer of a service but the ones that make keys."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.answers: list[str] = []
        self.statuses: set[int] = set()

    def ask(self, method: str, path: str, **sent: object) -> httpx2.Response:
        reply = self.client.request(method, path, **sent)  # type: ignore[arg-type]
        self.answers.append(f"{reply.headers} {reply.text}")
        self.statuses.add(reply.status_code)
        return reply


@contextmanager
def a_service(home: Path) -> Iterator[tuple[str, list[str]]]:
    """`python -m service` that logs all it can; its URL, and the lines as they come."""
    environment = {
        "MODELYARD_HOME": str(home),
        "MODELYARD_PORT": "0",
        "MODELYARD_LOG_LEVEL": "debug",
        "MODELYARD_BROKER_URL": "redis://me:broker-password@127.0.0.1:1/0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stderr is not None
    stream = process.stderr
    reading = threading.Thread(target=lambda: lines.extend(iter(stream.readline, "")))
    reading.start()
    try:
        deadline = time.monotonic() + 150
        while not (found := [line for line in lines if '"listening"' in line]):
            assert process.poll() is None, lines
            assert time.monotonic() < deadline, lines
            time.sleep(0.02)
        yield json.loads(found[0])["url"], lines
    finally:
        process.terminate()
        process.wait(30)
        reading.join(10)
        stream.close()


def lower_key() -> str:
    """One that may also stand where names do."""
    for number in range(10**6):
        secret = f"{number:022d}"
        if _checksum(secret).lower() == _checksum(secret):
            return f"mdy_{secret}_{_checksum(secret)}"
    raise AssertionError


@pytest.mark.timeout(240)
def test_rate_limit_spoof_a_key_never_appears_in_logs_errors_or_traces(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    migrations.upgrade(url)
    database = open_database(url)
    key, expired = lower_key(), new_key()
    now = utc_now()
    with database.write() as session:
        for one, ends in ((key, None), (expired, now - timedelta(days=1))):
            row = Key(
                id=f"key_{one[-6:]}", owner="o", name="n", secret_sha256=digest_of(one), scopes=["admin"]
            )
            row.created_at, row.expires_at = now, ends
            session.add(row)
        session.commit()
    with httpx2.Client() as nobody:
        Owner("o", key, database, nobody).dataset(key, state="unheard of")  # a 500 waits here
    database.close()

    with (
        a_service(tmp_path) as (service_url, lines),
        httpx2.Client(base_url=service_url, timeout=100) as client,
    ):
        said = Said(client)
        bearer = {"Authorization": f"Bearer {key}"}
        keys = [key, expired, key[:-2].upper()]
        for one in keys:
            for value in (f"Bearer {one}", f"Basic {base64.b64encode(f'u:{one}'.encode()).decode()}", one):
                said.ask("GET", "/v1/jobs", headers={"Authorization": value, "X-Request-ID": one})
                said.ask("GET", "/v2", headers={"Authorization": value})
            for headers in ({}, bearer):
                said.ask("GET", f"/v1/jobs?key={one}", headers=headers)
                said.ask("GET", f"/v1/jobs?{one}=1&state={one}", headers=headers)
                said.ask("GET", f"/v1/jobs?limit={one}", headers=headers)
                said.ask("GET", f"/v1/jobs/{one}", headers=headers)
                said.ask("GET", f"/v1/keys/{one}", headers=headers)
                said.ask("DELETE", f"/v1/keys/{one}", headers=headers)
                said.ask("GET", f"/nothing/{one}?key={one}", headers=headers)
                said.ask("GET", f"/v2/models/{one}", headers=headers)
                for path in ("/v1/jobs", "/v1/plans", "/v1/keys", "/v1/models/m/predict", "/v1/uploads"):
                    said.ask("POST", path, json={one: one}, headers=headers)
                    said.ask("POST", path, json=one, headers=headers)
                    said.ask("POST", path, content=f'{{"name": {one}', headers=headers)
                said.ask("POST", "/v1/keys", json={"name": one, "scopes": [one]}, headers=headers)
                said.ask("PUT", f"/v1/models/m/aliases/{one}", json={"version": one}, headers=headers)
                said.ask("PUT", f"/v1/datasets/X{one}?format={one}", content=one.encode(), headers=headers)
        said.ask("GET", "/v1/jobs", headers={**bearer, "Host": key})
        said.ask("POST", "/v1/jobs", headers={**bearer, "Origin": f"http://{key}"})
        failed = said.ask("GET", f"/v1/datasets/{key}", headers=bearer)
        made = client.post("/v1/keys", json={"name": "x", "scopes": ["read"]}, headers=bearer).json()
        said.ask("GET", "/v1/keys", headers=bearer)
        said.ask("GET", "/v1/audit", headers=bearer)
        said.ask("POST", f"/v1/keys/{made['id']}/rotate", json={"overlap_s": made["key"]}, headers=bearer)
        admin = (tmp_path / "admin.key").read_text().strip()

    assert failed.status_code == 500
    assert {200, 400, 401, 403, 404, 415, 422, 500} <= said.statuses
    log = "".join(lines)
    assert '"unexpected_error"' in log
    assert "Traceback" in log
    secrets = [*keys, made["key"], admin, "broker-password"]
    for secret in secrets:
        core = secret[4:20] if secret.startswith(("mdy_", "MDY_")) else secret
        assert core not in log, f"the log says {secret}"
        found = [answer for answer in said.answers if core in answer]
        assert not found, f"{secret} is in {found[0]}"
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("modelyard.db*"))
    assert made["key"].encode() not in stored
    assert admin.encode() not in stored
