"""One checkpoint on its way from scratch into storage, beside the thread that beats: a large one, or a slow
disk, costs no lease and delays no stop."""

import multiprocessing
import threading
from pathlib import Path

from core.db.models import Checkpoint
from core.storage import Storage
from core.storage.durable import is_full
from workers.messages import Saved

#: Storage without room is tried so often in all, with a pause between.
TRIES = 3
PAUSE_S = 10.0


class Storing:
    """`done` has something to read once a try has ended, well or not."""

    def __init__(self, storage: Storage, saved: Saved, row: Checkpoint) -> None:
        self.saved, self.row = saved, row
        self.tries = 0
        self._is_abandoned = threading.Event()
        self._storage = storage
        self._files = {row.weights_key: Path(saved.weights.path), row.state_key: Path(saved.state.path)}
        self._error: Exception | None = None
        self.done, self._end = multiprocessing.Pipe(duplex=False)
        self._start()

    @property
    def is_done(self) -> bool:
        return self.done.poll()

    def wait(self) -> None:
        self._thread.join()

    def lacks_room(self) -> OSError | None:
        """What the try that is done found out. Raises whatever else went wrong in it."""
        if isinstance(self._error, OSError) and is_full(self._error):
            return self._error
        if self._error is not None:
            raise self._error
        return None

    def try_again(self) -> None:
        """After a pause."""
        self.done.recv_bytes()
        self._start(PAUSE_S)

    def abandon(self) -> None:
        """Nobody will write its row: what is in storage goes."""
        self._is_abandoned.set()
        self.wait()
        for key in self._files:
            self._storage.delete(key)
        self.close()

    def close(self) -> None:
        self.done.close()
        self._end.close()

    def _start(self, pause_s: float = 0.0) -> None:
        self.tries += 1
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(pause_s,), name="store", daemon=True)
        self._thread.start()

    def _run(self, pause_s: float) -> None:
        try:
            if not self._is_abandoned.wait(pause_s):
                for key, path in self._files.items():
                    if path.exists():  # a try before this one may have come so far
                        self._storage.adopt(key, path)
        except Exception as error:  # told to who asks
            self._error = error
        self._end.send_bytes(b"")
