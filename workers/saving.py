"""Checkpoints are written by a thread, from a snapshot: the loop pays for the copy alone.

One is under way at a time, until the supervisor has made it durable and written its row: scratch never runs
ahead of the database.
"""

import threading
from pathlib import Path
from typing import Any

from msgspec import Struct
from torch import Tensor

from core.nets import artifacts
from workers.link import Link
from workers.messages import Saved


class Snapshot(Struct, frozen=True):
    """Copies: what the loop does next doesn't reach them."""

    epoch: int
    step: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]
    state: dict[str, Any]


class Saver:
    def __init__(self, link: Link, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Returns at once, or once the one before is committed. Raises what writing that one raised."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(snapshot,), name="save")
        self._thread.start()

    def wait(self) -> None:
        """Until what was saved is committed. Raises what writing it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
            self._link.wait_for_commit(snapshot.step)
        except Exception as error:  # told to the loop, which is who can answer it
            self._error = error

    def _write(self, snapshot: Snapshot) -> None:
        weights = artifacts.save(snapshot.weights, self._scratch / f"{snapshot.step}.weights.pt")
        state = artifacts.save(snapshot.state, self._scratch / f"{snapshot.step}.state.pt")
        self._link.send(Saved(snapshot.epoch, snapshot.step, snapshot.metrics, weights, state))
