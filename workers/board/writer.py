"""A thread that writes a job's event files with TensorBoard's own writer, so that the loop does not wait."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from workers.beside import alone

#: Who follows a job live sees what is at most about so old.
FLUSH_S = 2

#: Writes one thing; knows what and at which step.
Entry = Callable[[SummaryWriter], None]


class Writer:
    """What an earlier attempt wrote from `purge_step` on is hidden by every reader. `tell` hears once why
    nothing more is written, where that is so."""

    def __init__(self, folder: Path, purge_step: int, tell: Callable[[str], None]) -> None:
        self._folder, self._purge_step, self._tell = folder, purge_step, tell
        self._has_left_out = False
        self._entries: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._entries.qsize()

    def add(self, entry: Entry) -> None:
        if self._thread.is_alive():
            self._entries.put(entry)

    def close(self) -> None:
        """Returns once all is in the files, or nothing more can be written."""
        self._entries.put(None)
        self._thread.join()

    def _run(self) -> None:
        alone()
        try:
            self._write_all()
        except Exception as error:  # a full disk, say: the job itself goes on
            self._tell(f"no more event files for TensorBoard are written: {error}")
        self._entries = queue.SimpleQueue()  # nobody will take what is left

    def _write_all(self) -> None:
        """Raises what ended TensorBoard's own thread, which writes: most likely OSError."""
        writer = SummaryWriter(
            str(self._folder), purge_step=self._purge_step, max_queue=1000, flush_secs=FLUSH_S
        )
        try:
            while (entry := self._entries.get()) is not None:
                self._write(entry, writer)
        finally:
            writer.close()

    def _write(self, entry: Entry, writer: SummaryWriter) -> None:
        """What cannot be drawn is left out, and that is told once."""
        try:
            entry(writer)
        except OSError:
            raise
        except Exception as error:
            if not self._has_left_out:
                self._has_left_out = True
                self._tell(f"the board lacks a part that could not be drawn: {type(error).__name__}: {error}")
