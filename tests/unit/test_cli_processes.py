"""The command line as processes: becoming the server's parts, leaving on Ctrl-C, closed pipes, the doctor."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from modelyard.cli import processes
from modelyard.cli.app import run
from modelyard.cli.doctor import (
    PACKAGES,
    PackageFound,
    check_broker,
    check_disk,
    check_unix_socket,
    judge_package,
)
from tests.unit.scripted_service import Answer, Request, ScriptedService, a_job, an_event, event_stream

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "modelyard.cli"]

FAKE = (
    "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('MODELYARD_')}))"
)


@pytest.fixture
def fake_server(tmp_path: Path) -> dict[str, str]:
    """An environment in which each of the server's parts only prints its settings."""
    for name in ("deploy/local.py", "service/__main__.py", "workers/__main__.py", "migrations/__main__.py"):
        file = tmp_path / "fake" / name
        file.parent.mkdir(parents=True)
        (file.parent / "__init__.py").touch()
        file.write_text(FAKE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    return clean | {"PYTHONPATH": f"{tmp_path / 'fake'}:{ROOT}", "MODELYARD_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("tokens", "settings"),
    [
        (("up", "--home", "h", "--host", "127.0.0.1", "--port", "0", "--slots", "2"),
         {"HOME": "{cwd}/h", "HOST": "127.0.0.1", "PORT": "0", "SLOTS": "2"}),
        (("serve", "--port", "9000", "--inference-processes", "2"),
         {"PORT": "9000", "INFERENCE_PROCESSES": "2"}),
        (("worker", "--pool", "data", "--slots", "3"), {"POOL": "data", "SLOTS": "3"}),
        (("migrate",), {}),
    ],
)  # fmt: skip
def test_a_command_becomes_the_servers_process_with_its_settings(
    fake_server: dict[str, str], tmp_path: Path, tokens: tuple[str, ...], settings: dict[str, str]
) -> None:
    done = subprocess.run(
        [*CLI, *tokens], cwd=tmp_path, env=fake_server, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = {f"MODELYARD_{name}": value.format(cwd=tmp_path) for name, value in settings.items()}
    assert json.loads(done.stdout) == {"MODELYARD_HOME": str(tmp_path)} | expected


def test_without_the_server_part_the_install_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        processes, "find_spec", lambda name: None if name in ("deploy.local", "torch") else name
    )
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("a process was started"))
    assert run(["up"]) == 1
    err = capfd.readouterr().err
    assert "deploy.local, torch is missing" in err
    assert "pip install 'modelyard[server]'" in err


def test_ctrl_c_leaves_the_watching_and_says_that_the_job_goes_on(service: ScriptedService) -> None:
    listening = threading.Event()

    def silent(_: Request) -> Answer:
        listening.set()
        time.sleep(3)
        return event_stream(an_event(1))

    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    service.on("GET", "/v1/jobs/job_1/events", silent)
    command = [*CLI, "--url", service.url, "--key", "k", "jobs", "watch", "job_1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert listening.wait(20)
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "job job_1 goes on" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_traceback(service: ScriptedService) -> None:
    jobs = [a_job(id=f"job_{i}", name="n" * 60) for i in range(2000)]
    service.on("GET", "/v1/jobs", Answer(200, {"items": jobs, "next": None}))
    script = f"{' '.join(CLI)} --url {service.url} --key k jobs list --limit 2000 | head -1"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("job_0\t")
    assert done.stderr == ""


def test_the_live_view_draws_on_a_terminal(service: ScriptedService) -> None:
    now = {"state": "running", "progress": {"epoch": 1, "epochs": 4, "fraction": 0.25, "eta_seconds": 75},
           "metrics": {"train_loss": 0.123456, "val_accuracy": 0.5}}  # fmt: skip
    text = (
        f"event: progress\ndata: {json.dumps(now)}\n\n"
        + an_event(1, "warning", message="[red]few rows")
        + "event: end\ndata: {}\n\n"
    )
    service.on(
        "GET", "/v1/jobs/job_1", Answer(200, a_job()), Answer(200, a_job(state="cancelled", terminal=True))
    )
    service.on("GET", "/v1/jobs/job_1/events", event_stream(text))
    at = "2026-01-02T03:04:05Z"
    values = {"train_loss": 0.123456, "val_accuracy": 0.5}
    measured = [{"name": n, "step": 9, "epoch": 1, "value": v, "at": at} for n, v in values.items()]
    service.on("GET", "/v1/jobs/job_1/metrics", Answer(200, {"items": measured, "next": None}))
    ours, theirs = pty.openpty()
    command = [*CLI, "--url", service.url, "--key", "k", "jobs", "watch", "job_1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=theirs, stderr=subprocess.PIPE
    ) as watching:
        os.close(theirs)
        drawn = b""
        try:
            while piece := os.read(ours, 65536):
                drawn += piece
        except OSError:  # a terminal whose last writer left reads as an I/O error on Linux
            pass
        assert watching.stderr is not None
        err = watching.stderr.read().decode()
    os.close(ours)
    shown = drawn.decode()
    for part in ("epoch 1/4", "train_loss 0.1235", "val_accuracy 0.5", "eta 1:15", "[red]few rows", "25%"):
        assert part in shown
    assert watching.returncode == 1
    assert "cancelled" in err


# The doctor


@pytest.mark.parametrize(
    ("version", "floor", "is_ok"),
    [
        ("2.15.0+cpu", "2.11", True),
        ("2.9.1", "2.11", False),
        ("2.11.0rc1", "2.11", True),
        ("12.3", "12.3", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, floor: str, is_ok: bool) -> None:
    assert judge_package("torch", floor, PackageFound(version, None)).is_ok is is_ok


def test_a_package_that_does_not_import_is_a_finding_with_its_reason() -> None:
    finding = judge_package("torch", "2.11", PackageFound(None, "ImportError: libcudart.so"))
    assert finding.is_ok is False
    assert "libcudart" in finding.says
    assert "modelyard[server]" in finding.fix


def test_the_floors_are_those_of_the_package_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {line.split(">=")[0].split("[")[0].lower(): line.split(">=")[1] for line in
                project["optional-dependencies"]["server"]}  # fmt: skip
    for distribution, floor in PACKAGES.values():
        assert declared.get(distribution.lower(), "") == floor


def test_a_machine_without_a_broker_is_told_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MODELYARD_BROKER_URL", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("modelyard.cli.doctor.find_spec", lambda _: None)
    finding = check_broker()
    assert finding.is_ok is False
    assert "pip install" in finding.fix
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    assert check_broker().says == str(server)


def test_the_disk_of_a_home_that_is_still_to_be_made_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr("modelyard.cli.doctor.MIN_FREE_BYTES", 2**60)
    finding = check_disk()
    assert finding.is_ok is False
    assert str(tmp_path / "not" / "yet") in finding.says


def test_a_unix_socket_that_cannot_be_bound_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert check_unix_socket().is_ok is True
    too_long = tmp_path / ("x" * 120)  # a socket's path has at most 107 bytes
    too_long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(too_long))
    assert check_unix_socket().is_ok is False


def test_the_doctor_loads_nothing_of_the_server_itself_and_finds_this_machine_sound(
    service: ScriptedService,
) -> None:
    service.on("GET", "/health/ready", Answer(200, {"status": "ready"}))
    code = (
        "import sys; from modelyard.cli.app import run; status = run(sys.argv[1:]);"
        "print([m for m in ('torch', 'litestar', 'celery') if m in sys.modules], status)"
    )
    command = [sys.executable, "-c", code, "--url", service.url, "--key", "k", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout
    assert f"ok   service: ready at {service.url}" in done.stdout
