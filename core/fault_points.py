"""Named places where a test ends, holds or starves the process that comes by. Nothing happens at them unless
`MODELYARD_FAULTS` names a folder.

That is no setting of the product, and read here alone: the processes that train get no settings. A file of
the folder that is called as a point says what happens there: `kill`, `stop` (SIGSTOP), `term`, `full` (the
disk), `hang`, or `hold` (until the file `<point>.<pid>` is removed), and after a space at which passage of a
process. It happens in one process, once: the file is taken away first.
"""

import errno
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

#: Every name that is passed to `reach`, by who comes by.
POINTS = frozenset(
    {
        "child.step",
        "child.saving",
        "child.saved",
        "child.verifying",
        "worker.claimed",
        "worker.stored",
        "worker.committed",
        "worker.registering",
        "ingest.stored",
        "storage.written",
        "storage.renamed",
        "service.accepting",
        "service.accepted",
        "sweep.looked",
        "sweep.losing",
        "sweep.waking",
    }
)

_FOLDER = os.environ.get("MODELYARD_FAULTS")
_passages: Counter[str] = Counter()


def reach(point: str) -> None:
    """Raises OSError (ENOSPC) where a test says that the disk is full here."""
    if _FOLDER is not None:
        _act(Path(_FOLDER), point)


def _act(folder: Path, point: str) -> None:
    plan, taken = folder / point, folder / f"{point}.{os.getpid()}"
    try:
        act, _, passage = plan.read_text().partition(" ")
        _passages[point] += 1
        if _passages[point] < int(passage or 1):
            return
        plan.rename(taken)
    except FileNotFoundError:  # nothing is planned, or another process took it
        return
    match act:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "hang":
            threading.Event().wait()
        case "hold":
            while taken.exists():
                time.sleep(0.005)
        case _:
            raise ValueError(f"{plan}: expected kill, stop, term, full, hang or hold, got {act!r}")
