"""The embedded stack as a process: real broker, real migrations; service and workers are small stand-ins.

They come first on PYTHONPATH, write down what happens to them, and look at their neighbours as they end.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.address import url_of
from deploy.broker import answers_ping, choose_socket
from deploy.embed import RunningStack, StackFailed, running_stack
from deploy.home import Holder, holder_of
from tests.needs import missing

ROOT = Path(__file__).resolve().parents[2]

SERVICE = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from core.settings import Settings
from deploy.broker import answers_ping

settings = Settings()
home = settings.resolved_home()
(home / "admin.key").write_text("mdy_stand_in")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words): pass

def end(*_):
    alive = answers_ping(Path(settings.broker_url.removeprefix("unix://")))
    note(f"service ended, broker {'alive' if alive else 'gone'}")
    os._exit(0)

def note(words):
    with (home / "trace").open("a") as file: file.write(words + "\\n")

signal.signal(signal.SIGTERM, end)
server = HTTPServer((settings.host, settings.port), Handler)
note(f"service {os.getpid()}")
server.serve_forever()
"""

WORKER = """
import os, signal
from core.settings import Settings
from deploy.address import is_ready

settings = Settings()
home = settings.resolved_home()

def end(*_):
    alive = is_ready(f"http://{settings.host}:{settings.port}")
    note(f"{settings.pool} ended, service {'alive' if alive else 'gone'}")
    os._exit(0)

def note(words):
    with (home / "trace").open("a") as file: file.write(words + "\\n")

signal.signal(signal.SIGTERM, end)
note(f"{settings.pool} {os.getpid()}")
while True: signal.pause()
"""


FAILING_SERVICE = """
import time
from core.settings import Settings

trace = Settings().resolved_home() / "trace"
while not trace.exists() or trace.read_text().count("\\n") < 2: time.sleep(0.05)  # both workers are up
raise SystemExit("the table of keys is unreadable")
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "stand_ins"
    for name, code in (("service", SERVICE), ("workers", WORKER)):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        (folder / name / "__main__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    for name in list(os.environ):
        if name.startswith("MODELYARD_"):
            monkeypatch.delenv(name)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


Up = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def up(stand_ins: Path) -> Iterator[Up]:
    """Starts stacks; those that a test leaves running are stopped."""
    started: list[subprocess.Popen[str]] = []

    def start(home: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            env={**os.environ, "MODELYARD_HOME": str(home), "MODELYARD_PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def eventually(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def ready(home: Path) -> Holder:
    eventually(lambda: (holder := holder_of(home)) is not None and holder.is_ready, "the stack is ready")
    holder = holder_of(home)
    assert holder is not None
    return holder


def pids(home: Path) -> dict[str, int]:
    """The newest process of each stand-in."""
    return {
        name: int(pid)
        for name, pid in re.findall(r"^(\w+) (\d+)$", (home / "trace").read_text(), re.MULTILINE)
    }


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stack_comes_up_and_prints_its_url_its_key_file_and_three_curl_lines(up: Up, home: Path) -> None:
    process = up(home)
    holder = ready(home)
    process.terminate()
    said, _ = process.communicate(timeout=60)

    assert holder.pid == process.pid
    assert f"Modelyard is ready at {holder.url}" in said
    assert str(home / "admin.key") in said
    assert len(re.findall(r"curl -s ", said)) == 3
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "modelyard.db").stat().st_size > 0


def test_each_curl_line_of_the_greeting_works_as_pasted(stack: RunningStack) -> None:
    if shutil.which("curl") is None:
        missing("no curl")
    greeting = (stack.home / "logs" / "up.log").read_text()
    lines = [line.strip() for line in greeting.splitlines() if "curl -s" in line]
    _, pushed, listed = [
        json.loads(
            subprocess.run(
                ["bash", "-c", f"set -o pipefail; {line.replace('curl -s', 'curl -s --fail-with-body')}"],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
        )
        for line in lines
    ]

    assert pushed["name"] == "line"
    assert "line" in [dataset["name"] for dataset in listed["items"]]


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT])
def test_stack_ends_workers_then_service_then_broker_and_exits_0(
    up: Up, home: Path, request_to_stop: signal.Signals
) -> None:
    process = up(home)
    ready(home)
    eventually(lambda: len(pids(home)) == 3, "all three have started")
    started = pids(home)
    process.send_signal(request_to_stop)

    assert process.wait(60) == 0
    ends = [line for line in (home / "trace").read_text().splitlines() if "ended" in line]
    assert sorted(ends[:2]) == sorted(f"{pool} ended, service alive" for pool in started if pool != "service")
    assert ends[2:] == ["service ended, broker alive"]
    assert not (home / "broker.sock").exists()
    assert holder_of(home) is None


def test_second_stack_on_a_home_says_who_holds_it_and_exits_1(up: Up, home: Path) -> None:
    first = up(home)
    holder = ready(home)
    second = up(home)
    said, _ = second.communicate(timeout=30)

    assert second.returncode == 1
    assert f"process {first.pid}, serving {holder.url}" in said
    assert first.poll() is None


def test_home_can_be_used_again_after_the_stack_was_killed(up: Up, home: Path) -> None:
    first = up(home)
    ready(home)
    first.kill()
    first.wait(10)
    second = up(home)
    eventually(lambda: (holder := holder_of(home)) is not None and holder.pid == second.pid, "held anew")
    ready(home)


def test_part_that_dies_is_started_again_and_a_line_says_so(up: Up, home: Path) -> None:
    process = up(home)
    holder = ready(home)
    killed = pids(home)["service"]
    os.kill(killed, signal.SIGKILL)

    eventually(lambda: pids(home)["service"] != killed, "a new service")
    eventually(lambda: answers(holder.url), "the new service answers at the old URL")
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert "service ended (killed by SIGKILL); starting it again in 1 s" in said


def test_broker_that_dies_is_started_again_on_the_same_socket(up: Up, home: Path) -> None:
    process = up(home)
    ready(home)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    broker = next(int(pid) for pid in children if b"broker.sock" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(broker, signal.SIGKILL)

    eventually(lambda: not answers_ping(home / "broker.sock"), "the broker is gone")
    eventually(lambda: answers_ping(home / "broker.sock"), "a new broker answers")


def test_children_die_with_a_stack_that_is_killed(up: Up, home: Path) -> None:
    process = up(home)
    ready(home)
    eventually(lambda: len(pids(home)) == 3, "all three have started")
    process.kill()
    process.wait(10)

    eventually(lambda: not any(map(is_running, pids(home).values())), "service and workers are gone", 5)
    eventually(lambda: not answers_ping(home / "broker.sock"), "the broker is gone", 5)


def test_service_that_cannot_start_ends_the_stack_with_its_last_words(
    up: Up, home: Path, stand_ins: Path
) -> None:
    (stand_ins / "service" / "__main__.py").write_text(FAILING_SERVICE)
    process = up(home)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "service ended while starting" in said
    assert "the table of keys is unreadable" in said
    assert not answers_ping(home / "broker.sock")
    assert len(pids(home)) == 2
    eventually(lambda: not any(map(is_running, pids(home).values())), "no worker is left", 5)


def test_taken_port_is_refused_by_name_before_anything_starts(
    stand_ins: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        refused = subprocess.run(
            [sys.executable, "-m", "deploy.local"],
            env={**os.environ, "MODELYARD_HOME": str(home), "MODELYARD_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert refused.returncode == 1
    assert f"port {port}" in refused.stderr
    assert not (home / "trace").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("MODELYARD_PORT", "99999"), ("MODELYARD_SLOTS", "none"), ("MODELYARD_HOME", "/proc/x")],
)
def test_setting_that_cannot_be_meant_is_refused_in_a_line_with_its_value(setting: str, value: str) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "deploy.local"],
        env={**os.environ, setting: value},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert refused.returncode == 1
    assert refused.stderr.startswith("modelyard: ")
    assert value in refused.stderr
    assert "Traceback" not in refused.stderr


def test_folder_with_other_files_that_others_may_read_is_not_taken_over(up: Up, home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "thesis.txt").touch()
    process = up(home)
    said, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "holds other files" in said
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_home_with_a_long_path_gets_its_socket_in_a_short_private_folder(up: Up, tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    process = up(home)
    ready(home)
    environment = Path(f"/proc/{pids(home)['service']}/environ").read_bytes().decode().split("\0")
    url = next(line for line in environment if line.startswith("MODELYARD_BROKER_URL=")).split("=", 1)[1]
    path = Path(url.removeprefix("unix://"))

    assert len(os.fsencode(path)) <= 100
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert answers_ping(path)
    process.terminate()
    assert process.wait(60) == 0
    assert not path.parent.exists()


def test_broker_of_the_settings_is_used_and_none_is_started(
    up: Up, home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_BROKER_URL", broker_url)
    process = up(home)
    ready(home)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    assert len(children) == 3
    assert not (home / "broker.sock").exists()


def test_stack_embedded_in_a_program_is_ready_inside_the_block_and_gone_after_it(
    stand_ins: Path, home: Path
) -> None:
    with running_stack(home) as stack:
        assert answers(stack.url)
        assert stack.key == "mdy_stand_in"
    assert not is_running(stack.pid)
    assert not answers(stack.url)


def test_stack_embedded_in_a_program_that_cannot_start_raises_what_it_said(
    stand_ins: Path, home: Path
) -> None:
    (stand_ins / "service" / "__main__.py").write_text("raise SystemExit('no such luck')")
    with pytest.raises(StackFailed, match="no such luck"), running_stack(home):
        pytest.fail("the block ran without a stack")


def test_socket_of_a_short_home_lies_in_it(tmp_path: Path) -> None:
    assert choose_socket(Path("/srv/modelyard")) == Path("/srv/modelyard/broker.sock")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_url_is_one_that_reaches_the_service_from_here(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
