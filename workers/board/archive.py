"""The event files of a job as one archive in storage, so that any service can give them out.

No torch here: this is the supervisor's side.
"""

import threading
import time
import zipfile
from pathlib import Path

import structlog

from core import boards
from core.db.models import Job
from core.storage import Storage
from workers.house import House

log = structlog.get_logger()

#: While a job runs its archive is renewed with a checkpoint, and no more often than this.
STORE_EVERY_S = 30.0


def prepared(house: House, job: Job) -> str:
    """The folder as a child's order names it, with what earlier attempts on other machines wrote; empty where
    event files are turned off."""
    if house.settings.tensorboard == "off":
        return ""
    folder = boards.run_folder(house.settings.resolved_home(), job.name, job.id)
    if job.attempt > 1:
        try:
            keys = boards.archives(house.storage, job.id)
            if keys:
                unpack(house.storage.fetch(keys[-1]), folder)
        except Exception:  # the job itself lacks nothing
            log.exception("board_not_restored", job=job.id)
    return str(folder)


class Archive:
    """Of the folder of one job. That it can't be kept costs the job nothing: it is logged, and tried again
    with a later checkpoint."""

    def __init__(self, house: House, job: Job) -> None:
        self._is_on = house.settings.tensorboard == "on"
        self._folder = boards.run_folder(house.settings.resolved_home(), job.name, job.id)
        self._temporary = house.settings.scratch() / "boards" / f"{job.id}-{job.fence}.zip"
        self._storage: Storage = house.storage
        self._job_id, self._fence = job.id, job.fence
        self._stored_bytes = 0
        self._stored_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def store_now_and_then(self) -> None:
        """In a thread: a slow object store holds up no beat."""
        is_due = time.monotonic() - self._stored_at >= STORE_EVERY_S
        if is_due and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._store, name="board", daemon=True)
            self._thread.start()

    def store(self) -> None:
        """Where there is more than was stored."""
        if self._thread is not None:
            self._thread.join()
        self._store()

    def _store(self) -> None:
        if not self._is_on or (size := _size(self._folder)) == self._stored_bytes:
            return
        try:
            self._write()
        except Exception:
            log.exception("board_not_stored", job=self._job_id)
        else:
            self._stored_bytes = size
        self._stored_at = time.monotonic()

    def _write(self) -> None:
        before = boards.archives(self._storage, self._job_id)
        self._temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            pack(self._folder, self._temporary)
            key = boards.archive_key(self._job_id, self._fence, time.time_ns() // 1_000_000)
            self._storage.adopt(key, self._temporary)
        finally:
            self._temporary.unlink(missing_ok=True)
        for earlier in before:  # only now: a reader finds one at any time
            self._storage.delete(earlier)


def pack(folder: Path, archive: Path) -> None:
    """Files that are still written are taken as far as they go: a reader of events stops at a torn end."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in _files(folder):
            packed.write(path, path.relative_to(folder).as_posix())


def unpack(archive: Path, folder: Path) -> None:
    """Leaves alone what is there already and is not shorter: it is the same file, further on."""
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            target = folder / member.filename
            if not target.is_file() or target.stat().st_size < member.file_size:
                packed.extract(member, folder)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
