"""The embedded stack as a child of a Python program, for the demo, the tests and the benchmarks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.home import holder_of, prepare_home
from deploy.parts import dies_with_parent

START_WAIT_S = 180.0
#: Longer than the graces of `deploy.local` together.
STOP_WAIT_S = 90.0


class StackFailed(Exception):
    """The stack did not come up, or did not end well; the message holds what it said."""


@dataclass(frozen=True)
class RunningStack:
    url: str
    key_file: Path
    home: Path
    pid: int

    @property
    def key(self) -> str:
        return self.key_file.read_text().strip()


@contextmanager
def running_stack(home: Path, **settings: str) -> Iterator[RunningStack]:
    """A stack on a free port in `home`, ready; stopped at the end of the block.

    `settings` are those of `core.settings` by name, say `slots="2"`. Call it from the main thread: the stack
    is told to stop when the thread that started it ends.
    """
    prepare_home(home)
    said = home / "logs" / "up.log"
    environment = {**os.environ, "MODELYARD_PORT": "0", "MODELYARD_HOME": str(home)}
    environment |= {f"MODELYARD_{name.upper()}": value for name, value in settings.items()}
    with said.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to the program, which then stops the stack
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )
    try:
        url = _wait_ready(process, home, said)
        yield RunningStack(url, home / "admin.key", home, process.pid)
    finally:
        process.terminate()
        try:
            status = process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    if status != 0:
        raise StackFailed(f"the stack ended with status {status}; it said:\n{_tail(said)}")


def _wait_ready(process: "subprocess.Popen[bytes]", home: Path, said: Path) -> str:
    deadline = time.monotonic() + START_WAIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StackFailed(f"the stack did not start:\n{_tail(said)}")
        holder = holder_of(home)
        if holder is not None and holder.pid == process.pid and holder.is_ready:
            return holder.url
        time.sleep(0.05)
    raise StackFailed(f"the stack was not ready within {START_WAIT_S:.0f} s; it said:\n{_tail(said)}")


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-40:])
