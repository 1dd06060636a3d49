"""A server as a child, for its turn: started, waited for, ended with all its own."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving.asking import Request, WrongAnswer, ask
from benchmarks.training.scripts import OURS
from deploy.parts import dies_with_parent

CHECKOUT = Path(__file__).resolve().parents[2]
START_WAIT_S = 120.0
STOP_WAIT_S = 15.0
TAIL_CHARACTERS = 2000


class ServerFailed(Exception):
    """It did not come up; the message holds what it said."""


@contextmanager
def running(
    command: list[str], url: str, request: Request, environment: dict[str, str], log: Path
) -> Iterator[None]:
    """Ready when it answers the request. Torch has its own defaults there, not what our Makefile sets."""
    plain = {name: value for name, value in os.environ.items() if name not in OURS}
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=plain | environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us alone
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )
    try:
        _wait_ready(process.pid, url, request, log)
        yield
    finally:
        _end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(pid: int, url: str, request: Request, log: Path) -> None:
    deadline, last = time.monotonic() + START_WAIT_S, ""
    while time.monotonic() < deadline:
        if _has_ended(pid):
            raise ServerFailed(f"the server of {log.stem} ended as it started; it said:\n{_tail(log)}")
        try:
            ask(url, request)
            return
        except (OSError, WrongAnswer) as error:  # not yet, or its model is not yet loaded
            last = str(error)
            time.sleep(0.1)
    waited = f"the server of {log.stem} did not answer within {START_WAIT_S:.0f} s ({last})"
    raise ServerFailed(f"{waited}; it said:\n{_tail(log)}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """It leads its session: what it leaves behind is ended by that, before its number can be another's."""
    process.terminate()
    deadline = time.monotonic() + STOP_WAIT_S
    while not _has_ended(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_ended(pid: int) -> bool:
    """Without taking its status: the number stays its own until `wait`."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL_CHARACTERS:]
