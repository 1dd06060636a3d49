"""wrk, the load of all sides: keeps so many connections busy with one request and says how it went."""

import shutil
import subprocess
from pathlib import Path

import msgspec

from benchmarks.serving.asking import Request
from benchmarks.serving.results import Measured

SCRIPT = Path(__file__).with_name("post.lua")
#: A net that takes a second for a batch may let the last of 32 wait for some.
TIMEOUT_S = 60
WARM_UP_S = 2


class NoWrk(Exception):
    """wrk is not on this machine."""


class BadAnswers(Exception):
    """Some requests were refused or broke: the figures would be those of errors."""


class _Said(msgspec.Struct):
    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    refused: int
    broken: int


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise NoWrk("expected the program wrk on PATH, it is not there: apt install wrk")


def press(url: str, request: Request, connections: int, seconds: int, folder: Path) -> Measured:
    """`folder` is where the body is put down for it. Raises BadAnswers."""
    said = _run(url, request, connections, seconds, folder)
    if not said.requests:
        raise BadAnswers(f"{url}{request.path} answered none within {seconds} s: give it more --seconds")
    return Measured(said.requests / said.duration_us * 1e6, said.p50_us / 1000, said.p99_us / 1000)


def warm_up(url: str, request: Request, connections: int, folder: Path) -> None:
    _run(url, request, connections, WARM_UP_S, folder)


def _run(url: str, request: Request, connections: int, seconds: int, folder: Path) -> _Said:
    body = folder / "body"
    body.write_bytes(request.body)
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), url + request.path, "--", str(body)]
    command += [f"{name}: {value}" for name, value in request.headers.items()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines()
    if ended.returncode != 0 or not lines:
        raise BadAnswers(f"wrk ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-500:]}")
    said = msgspec.json.decode(lines[-1], type=_Said)
    if said.refused or said.broken:
        raise BadAnswers(
            f"of {said.requests} requests to {url}{request.path} {said.refused} were answered with an error "
            f"and {said.broken} broke off; expected none: look at the server's log"
        )
    return said
