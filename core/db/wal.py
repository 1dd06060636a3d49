"""Who copies SQLite's write-ahead log into the database.

Before 3.51.3 a checkpoint that starts right after another has ended may miss that a commit meanwhile began
the log anew, and later leave out pages: the database is corrupt (https://sqlite.org/wal.html#walresetbug).
With such a library no connection does it on its own; one process does, and nobody commits while it does.
"""

import contextlib
import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from sqlalchemy import make_url

FIXED_IN = (3, 51, 3)
#: The log is copied once it is larger: SQLite's own measure, 1,000 pages.
MIN_BYTES = 4 * 1024 * 1024
LOOK_EVERY_S = 1.0
#: How long it waits for who writes; then it looks again later.
WAIT_S = 5.0

log = structlog.get_logger()


def is_alone_needed() -> bool:
    """Whether this library's own checkpoints may corrupt what several processes write to."""
    return sqlite3.sqlite_version_info < FIXED_IN


class Checkpointer:
    """In a thread, of a service on SQLite. Of several on one database, the first does it; another takes over
    when that has ended, however it did."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with Path(f"{self._path}.checkpoints").open("a") as turn:
            while not self._closed.wait(LOOK_EVERY_S):
                if _is_large(self._path) and _takes(turn.fileno()):
                    try:
                        copy(self._path)
                    except sqlite3.Error as error:  # tried again at the next look: the log only grows
                        log.warning("log_not_copied", reason=str(error))


def copy(path: Path) -> None:
    """Copies what the log holds into the database, as far as no reader needs what was before. Raises
    sqlite3.Error."""
    with _connected(path) as writer, _connected(path) as copier:
        writer.execute("BEGIN IMMEDIATE")  # from here nobody commits, so nobody begins the log anew
        try:
            copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            writer.execute("ROLLBACK")


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA synchronous=FULL")
        yield connection
    finally:
        connection.close()


def _is_large(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size >= MIN_BYTES
    except FileNotFoundError:
        return False


def _takes(descriptor: int) -> bool:
    """Held until this process ends, or closes the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_checkpointer(url: str) -> Checkpointer | None:
    """None where nobody needs it: another database, or a library that has the cure."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not is_alone_needed():
        return None
    return Checkpointer(Path(parsed.database))
