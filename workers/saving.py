"""Checkpoints are written by a thread, from a snapshot: the loop pays for the copy alone.

One is under way at a time, until the supervisor has made it durable and written its row: scratch never runs
ahead of the database. A disk without room is told, and tried again.
"""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from msgspec import Struct
from torch import Tensor

from core.fault_points import reach
from core.nets import artifacts
from core.storage.durable import is_full
from workers.beside import alone
from workers.cursor import NonFiniteLoss
from workers.link import Link
from workers.messages import Noted, Saved

#: A snapshot that finds no room is tried so often in all, with a pause between.
TRIES = 3
PAUSE_S = 10.0
#: How soon a loop that waits for the save before hears a Stop.
LISTEN_S = 0.05


class StorageFull(Exception):
    """There was no room for a checkpoint, however often it was tried."""


class Snapshot(Struct, frozen=True):
    """Copies: what the loop does next doesn't reach them. `parameters` are the names of those weights that
    are learnt."""

    epoch: int
    step: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]
    state: dict[str, Any]
    parameters: frozenset[str] = frozenset()


class Saver:
    def __init__(self, link: Link, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Returns at once, or once the one before is committed. Raises what writing that one raised. Nothing
        is saved where a Stop that asks for no checkpoint came meanwhile."""
        if not self.wait():
            return
        self._thread = threading.Thread(target=self._run, args=(snapshot,), name="save", daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Until what was saved is committed. False where a Stop came that asks for no checkpoint, or that
        ended the tries to find room: whoever goes on does so from the checkpoint before. Raises what writing
        it raised: StorageFull, or NonFiniteLoss where the weights are no numbers any more."""
        while self._thread is not None:
            self._thread.join(LISTEN_S)
            if not self._thread.is_alive():
                self._thread = None
            elif self._link.stop is not None and not self._link.stop.save:
                return False
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, StorageFull) and self._link.stop is not None:
                return False
            raise error
        return True

    def _run(self, snapshot: Snapshot) -> None:
        try:
            alone()
            require_finite(snapshot)
            self._store(snapshot)
            self._link.wait_for_commit(snapshot.step)
        except Exception as error:  # told to the loop, which is who can answer it
            self._error = error

    def _store(self, snapshot: Snapshot) -> None:
        for tried in range(1, TRIES + 1):
            reach("child.saving")
            try:
                saved = self._write(snapshot)
            except StorageFull as full:
                self._link.send(Noted("storage_full", self._shortage(snapshot, str(full))))
                if tried == TRIES or self._link.wait_for_stop(PAUSE_S):
                    raise
            else:
                reach("child.saved")
                self._link.send(saved)
                return

    def _write(self, snapshot: Snapshot) -> Saved:
        weights = self._scratch / f"{snapshot.step}.weights.pt"
        state = self._scratch / f"{snapshot.step}.state.pt"
        try:
            return Saved(
                snapshot.epoch,
                snapshot.step,
                snapshot.metrics,
                artifacts.save(snapshot.weights, weights),
                artifacts.save(snapshot.state, state),
            )
        except (OSError, RuntimeError) as error:
            reason = self._lacks_room(snapshot)  # while what was half written is still in the way
            weights.unlink(missing_ok=True)
            state.unlink(missing_ok=True)
            if reason is None:
                raise
            raise StorageFull(
                f"the checkpoint of step {snapshot.step} needs {size_of(snapshot):,} bytes: {reason}"
            ) from error

    def _lacks_room(self, snapshot: Snapshot) -> str | None:
        """torch's writer fails without saying why: the same room is asked of the file system."""
        probe = self._scratch / "probe"
        try:
            with probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size_of(snapshot))
        except OSError as error:
            return error.strerror if is_full(error) else None
        finally:
            probe.unlink(missing_ok=True)
        return None

    def _shortage(self, snapshot: Snapshot, message: str) -> dict[str, Any]:
        return {
            "message": message,
            "step": snapshot.step,
            "needed_bytes": size_of(snapshot),
            "free_bytes": shutil.disk_usage(self._scratch).free,
        }


def require_finite(snapshot: Snapshot) -> None:
    """Going back to a checkpoint must help. Raises NonFiniteLoss."""
    for state in (snapshot.weights, snapshot.state.get("net") or {}):
        for name in snapshot.parameters & state.keys():
            if not state[name].isfinite().all():
                raise NonFiniteLoss(f"the parameter {name} is no number any more after step {snapshot.step}")


def size_of(value: Any) -> int:
    """Bytes of the tensors in a snapshot, and something for what stands around each."""
    match value:
        case Snapshot():
            return size_of(value.weights) + size_of(value.state)
        case Tensor():
            return value.nbytes + 256
        case dict():
            return sum(map(size_of, value.values()))
        case list() | tuple():
            return sum(map(size_of, value))
        case _:
            return 0
