"""`python -m service` as it is run: starts, refuses, stops."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

import migrations
from core.db.engines import open_database
from core.settings import Settings
from tests import trap
from tests.injected import until
from tests.running_service import Owner, run_service
from tests.service_process import line_of, service_process


def test_it_says_where_it_listens_and_stops_at_sigterm_with_a_stream_open(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path / 'modelyard.db'}")
    with service_process(tmp_path) as process:
        url = line_of(process, "listening")["url"]
        key = (tmp_path / "admin.key").read_text().strip()
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            assert client.get("/health/ready").json()["status"] == "ok"
            csv = b"x,label\n" + b"".join(b"%d,%s\n" % (n, b"ab"[n % 2 : n % 2 + 1]) for n in range(50))
            assert client.put("/v1/datasets/d", content=csv).status_code == 202
            with _waiting_stream(client, tmp_path, url) as lines:
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                rest = list(lines)
                assert "event: end" not in rest
                assert process.wait(20) == 0
                assert time.monotonic() - started < 5


@contextmanager
def _waiting_stream(client: httpx2.Client, home: Path, url: str) -> Iterator[Iterator[str]]:
    """An event stream of a job that nobody runs."""

    database = open_database(f"sqlite:///{home / 'modelyard.db'}")
    owner = Owner("default", "", database, client)
    owner.dataset("ready")
    job = owner.post_job(dataset="ready")
    headers = {"Accept": "text/event-stream"}
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=headers) as reply:
        lines = reply.iter_lines()
        while next(lines) != "event: progress":
            pass
        yield lines
    database.close()


def test_it_refuses_a_database_without_its_tables_and_says_what_to_do(tmp_path: Path) -> None:
    with service_process(tmp_path) as process:
        assert process.wait(60) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert "modelyard migrate" in said
    assert "Traceback" not in said


def test_it_refuses_to_serve_the_world_without_keys(tmp_path: Path) -> None:
    with service_process(tmp_path, MODELYARD_AUTH="off", MODELYARD_HOST="0.0.0.0") as process:
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "MODELYARD_INSECURE" in process.stderr.read()


def test_once_told_to_stop_it_is_not_ready_and_nobody_waits_any_longer(tmp_path: Path) -> None:
    with run_service(f"sqlite:///{tmp_path / 'modelyard.db'}", tmp_path) as service, service.owner() as me:
        me.dataset()
        job_id = me.post_job()["id"]
        timer = threading.Timer(0.3, service.server.config.app.begin_stop)
        timer.start()
        started = time.monotonic()
        assert me.client.get(f"/v1/jobs/{job_id}?wait=30").status_code == 200
        timer.join()
        assert 0.2 < time.monotonic() - started < 5
        ready = me.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert me.client.get("/health/live").status_code == 200


def test_killed_it_leaves_none_of_its_children_behind(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path / 'modelyard.db'}")
    with service_process(tmp_path, MODELYARD_AUTH="off") as process:
        url = line_of(process, "listening")["url"]
        refused = httpx2.post(f"{url}/v1/plans", json={"name": "m"}, timeout=30)
        assert refused.json()["errors"][0]["pointer"] == "/dataset"  # the helper answered: its children live
        family = _descendants(process.pid)
        assert len(family) >= 3  # the fork server and two children
        process.kill()
        deadline = time.monotonic() + 20
        while remaining := [pid for pid in family if _runs(pid)]:
            assert time.monotonic() < deadline, f"{remaining} still run"
            time.sleep(0.05)


def test_killed_while_an_inference_process_hangs_it_leaves_none_of_them_behind(tmp_path: Path) -> None:
    migrations.upgrade(f"sqlite:///{tmp_path / 'modelyard.db'}")
    trapped = trap.Trapped(tmp_path / "trap")
    environment = {
        "MODELYARD_INFERENCE_PROCESSES": "2",
        "MODELYARD_PLUGINS": trap.PACKAGE,
        "PYTHONPATH": str(trap.install(tmp_path / "plugin")),
    }
    with service_process(tmp_path, **environment) as process:
        url = line_of(process, "listening")["url"]
        key = (tmp_path / "admin.key").read_text().strip()
        database = open_database(f"sqlite:///{tmp_path / 'modelyard.db'}")
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            until(lambda: client.get("/health/ready").status_code == 200, "it is ready", 60)
            me = Owner("default", key, database, client)
            me.version(Settings(home=tmp_path), trapped.net, described=trapped.described)
            body = {"instances": trap.rows(1)}
            assert client.post("/v1/models/m/predict", json=body).status_code == 200
            trapped.set("forward", "hang")
            asking = threading.Thread(target=_ask_in_vain, args=(client, body))
            asking.start()
            until(trapped.is_reached, "a forward hangs")
            family = _descendants(process.pid)
            assert len(family) >= 5  # the fork server, two that check specs, two that compute
            process.kill()
            until(lambda: not any(_runs(pid) for pid in family), "none of them runs")
            asking.join()
        database.close()


def _ask_in_vain(client: httpx2.Client, body: dict[str, Any]) -> None:
    with pytest.raises(httpx2.TransportError):
        client.post("/v1/models/m/predict", json=body)


def _descendants(pid: int) -> set[int]:
    parents = {int(path.parent.name): _stat(path)[1] for path in Path("/proc").glob("[0-9]*/stat")}
    family = {pid}
    while more := {child for child, parent in parents.items() if int(parent) in family} - family:
        family |= more
    return family - {pid}


def _runs(pid: int) -> bool:
    """Not a zombie that nobody has reaped."""
    return _stat(Path(f"/proc/{pid}/stat"))[0] != "Z"


def _stat(path: Path) -> tuple[str, str]:
    """State and parent of a process; as a zombie's where it is gone."""
    try:
        state, parent, *_ = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "Z", "0"
    return state, parent
