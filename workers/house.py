"""What a worker process has: settings, database, storage, its row among the workers, the wish to drain."""

import contextlib
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib import metadata

import structlog
from sqlalchemy.exc import OperationalError

from core import ids
from core.db.engines import Database, open_database
from core.db.models import Worker, utc_now
from core.db.statements import workers
from core.settings import Settings
from core.storage import Storage, open_storage

log = structlog.get_logger()

#: Between two tries to reach a database that is away.
RETRY_S = 1.0


class House:
    """Opened once a process, before the first task."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database: Database = open_database(settings.resolved_database_url())
        self.storage: Storage = open_storage(settings.resolved_storage_url(), settings.scratch() / "fetched")
        self.worker_id = ids.worker_id()
        self.host = socket.gethostname()
        self.draining = threading.Event()
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self.claiming = threading.Lock()
        self._closed = threading.Event()

    def open(self) -> None:
        """Writes the row by which the sweep knows how many slots there are, and keeps it beating. Waits for a
        database that is away."""
        row = self._row()
        while True:
            try:
                with self.database.write() as session:
                    session.merge(row)  # a try before may have come through
                    session.commit()
                break
            except OperationalError as error:
                log.warning("database_away", reason=str(error.orig), hint="the worker starts once it answers")
                time.sleep(RETRY_S)
        threading.Thread(target=self._beat, name="worker-beat", daemon=True).start()

    def _row(self) -> Worker:
        return Worker(
            id=self.worker_id,
            host=self.host,
            pid=os.getpid(),
            pool=self.settings.pool,
            devices=devices(self.settings.pool),
            slots=self.settings.slots,
            torch=metadata.version("torch"),
            started_at=utc_now(),
        )

    def close(self) -> None:
        self._closed.set()
        with self.database.write() as session:
            session.execute(workers.remove_worker(self.worker_id))
            session.commit()
        self.database.close()

    @property
    def free(self) -> int:
        """Slots that no work holds."""
        with self._lock:
            return max(0, self.settings.slots - len(self._held))

    @contextlib.contextmanager
    def busy(self, slots: int = 1) -> Iterator[list[int]]:
        """Around one piece of work that holds so many slots; the sweep takes them from those there are. Gives
        their numbers, the least that are free: on a GPU worker a slot's is its device's."""
        with self._lock:
            free = (number for number in itertools.count() if number not in self._held)
            numbers = list(itertools.islice(free, slots))
            self._held.update(numbers)
        try:
            yield numbers
        finally:
            with self._lock:
                self._held.difference_update(numbers)

    def _beat(self) -> None:
        while not self._closed.wait(self.settings.beat_s):
            try:
                with self.database.write() as session:
                    beaten = session.execute(workers.beat_worker(self.worker_id, len(self._held)))
                    if beaten.one_or_none() is None:  # it was still for so long that the sweep removed it
                        session.add(self._row())
                    session.commit()
            except Exception:  # the database is away: the jobs' own beats decide what is lost
                log.exception("worker_beat_failed")


def devices(pool: str) -> list[str]:
    """The GPUs that a gpu worker sees, by uuid. No torch here: the driver's own tool is asked."""
    if pool != "gpu":
        return []
    try:
        command = ["nvidia-smi", "-L"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemExit(f"a gpu worker needs a GPU: nvidia-smi did not answer ({error})") from error
    return [line.split("UUID: ")[-1].rstrip(")") for line in listed.stdout.splitlines() if "UUID" in line]
