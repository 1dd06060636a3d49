"""The processes that fetch and read for a data worker: started, watched, ended with it."""

import subprocess
import sys
import time
from collections.abc import Sequence

from core.db.models import Dataset
from core.db.statements import leases
from workers.house import House
from workers.ledger import Fenced

LISTEN_S = 0.05


def run_reader(
    house: House, dataset: Dataset, module: str, arguments: Sequence[str], timeout_s: float
) -> int | None:
    """Runs `python -m module`; beats the dataset's lease meanwhile. The exit code, negative for a signal;
    None where the worker drains. Raises Fenced where the dataset is another's."""
    # Its standard input is a pipe that nobody writes to: it ends when this process does.
    command = [sys.executable, "-m", module, *arguments, "--end-with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            started = time.monotonic()
            next_beat = started + house.settings.beat_s
            while process.poll() is None:
                # CPU seconds do not bound a reader that waits for ever, as Arrow may when memory runs out.
                if time.monotonic() - started > timeout_s:
                    process.kill()
                if house.draining.wait(LISTEN_S):
                    return None
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + house.settings.beat_s
                    _beat(house, dataset)
        finally:
            process.kill()
        return process.returncode


def _beat(house: House, dataset: Dataset) -> None:
    with house.database.write() as session:
        if session.scalar(leases.beat_dataset(dataset.id, dataset.fence)) is None:
            raise Fenced(dataset.id)
        session.commit()
