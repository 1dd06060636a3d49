"""What a process took of memory and files, by Linux's own count."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@contextmanager
def grows_less_than(limit_bytes: int) -> Iterator[None]:
    """This process: its highest resident memory within the block, above what it was at its beginning."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kept("VmRSS")
    yield
    grown = _kept("VmHWM") - before
    assert grown < limit_bytes, f"it grew by {grown / MIB:.0f} MiB"


#: A process inherits its parent's peak: a small one stands between.
_LAUNCHER = """
import json, os, resource, sys, time
max_file_bytes, *command = sys.argv[1:]
started = time.monotonic()
if (pid := os.fork()) == 0:
    if max_file_bytes != "-":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_file_bytes),) * 2)
    os.execv(command[0], command)
_, status, used = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024, time.monotonic() - started]))
"""


@dataclass(frozen=True)
class Ran:
    status: int
    stderr: str
    peak_bytes: int
    took_s: float


def run_measured(command: list[str], max_file_bytes: int | None = None) -> Ran:
    """A child that may write files of so many bytes at most; `peak_bytes` of memory were resident."""
    launched = [sys.executable, "-S", "-c", _LAUNCHER, str(max_file_bytes or "-"), *command]
    done = subprocess.run(launched, capture_output=True, text=True, timeout=100, check=True)
    status, peak_bytes, took_s = json.loads(done.stdout.splitlines()[-1])
    return Ran(status, done.stderr, peak_bytes, took_s)


def _kept(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
