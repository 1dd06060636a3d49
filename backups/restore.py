"""Restoring a backup: everything is checked before anything is written; then files, then the rows that name
them, in one transaction. What was interrupted is started again with `--force`."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

import migrations
from backups import Refused, archive, rows
from backups.progress import Progress
from core.db.engines import is_in_process, open_database
from core.db.models import BatchPrediction, Dataset, Job, Worker, utc_now
from core.db.statements import batch_predictions, jobs
from core.settings import Settings
from core.storage import Storage, open_storage
from modelyard.specs import BatchState, JobState

REASON = "restored from a backup"


@dataclass(frozen=True)
class Restored:
    about: archive.About
    num_files: int
    num_requeued: int


def restore(settings: Settings, source: Path, progress: Progress, *, is_forced: bool) -> Restored:
    """Raises Refused, having changed nothing, for a backup that is damaged or newer than this version, and
    for a target that is in use or, unless `is_forced`, not empty."""
    url = settings.resolved_database_url()
    with archive.reading(source) as backup, _alone(settings):
        _require_known(backup.about)
        storage = open_storage(settings.resolved_storage_url(), settings.scratch() / "fetched")
        _require_not_newer(url)
        if not is_forced:
            _require_empty(url, storage, backup.about)
        settings.scratch().mkdir(parents=True, exist_ok=True)
        progress.begin("checking", total_bytes=backup.num_bytes)
        backup.verify(progress.bytes)
        with tempfile.TemporaryDirectory(prefix="restore-", dir=settings.scratch()) as folder:
            copy = Path(folder) / archive.DATABASE
            progress.begin("writing", total_bytes=backup.num_bytes)
            backup.extract(backup.database(), copy, progress.bytes)
            rows.require_sound(copy)
            num_requeued = _prepare(copy)
            num_files = 0
            for key, member in backup.files():
                path = Path(folder) / str(num_files)
                backup.extract(member, path, progress.bytes)
                storage.adopt(key, path)
                num_files += 1
            progress.begin("writing the rows")
            migrations.upgrade(url)
            rows.replace(url, copy, progress.rows)
        return Restored(backup.about, num_files, num_requeued)


def _prepare(copy: Path) -> int:
    """Brings the copy to this version's schema, and what ran when it was taken back to the queue: the workers
    that had it are not here. Returns how much that was."""
    url = f"sqlite:///{copy}"
    migrations.upgrade(url)
    database = open_database(url)
    try:
        with database.write() as session:
            now = utc_now()
            running = session.scalars(select(Job).where(Job.state == JobState.RUNNING)).all()
            session.add_all([jobs.leave(job, REASON, now) for job in running])
            batches = session.scalars(
                select(BatchPrediction).where(BatchPrediction.state == BatchState.RUNNING)
            ).all()
            for batch in batches:
                batch_predictions.leave(batch, REASON, now)
            read = session.scalars(select(Dataset).where(Dataset.state == "ingesting")).all()
            for dataset in read:
                dataset.state = "queued"
                dataset.revision += 1
            for worker in session.scalars(select(Worker)):
                session.delete(worker)
            session.commit()
    finally:
        database.close()
    rows.make_self_contained(copy)
    return len(running) + len(batches) + len(read)


def _require_known(about: archive.About) -> None:
    if about.revision not in migrations.revisions():
        raise Refused(
            f"the backup has the schema {about.revision}, made by Modelyard {about.version}; this version "
            f"knows up to {migrations.head()}: restore it with that version or a later one"
        )


def _require_not_newer(url: str) -> None:
    if is_in_process(url) and not Path(rows.database_path(url)).is_file():
        return
    found = migrations.current(url)
    if found is not None and found not in migrations.revisions():
        raise Refused(
            f"the database is at revision {found}, and this version knows up to {migrations.head()}: "
            "restore with the version that runs on it, or into another database"
        )


def _require_empty(url: str, storage: Storage, about: archive.About) -> None:
    if (found := _table_with_rows(url)) is not None:
        raise Refused(
            f"the database holds rows already, in {found} among others: restore into an empty one, or say "
            "--force, which replaces all rows"
        )
    if about.has_files and (key := next(iter(storage.list("")), None)) is not None:
        raise Refused(
            f"the storage holds files already, {key} among them: restore into an empty one, or say --force, "
            "which leaves them beside those of the backup"
        )


def _table_with_rows(url: str) -> str | None:
    if is_in_process(url) and not Path(rows.database_path(url)).is_file():
        return None
    database = open_database(url)
    try:
        with database.engine.connect() as connection:
            return rows.table_with_rows(connection)
    finally:
        database.close()


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Holds the home as `modelyard up` does. Raises Refused where a stack has it."""
    home = settings.resolved_home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"{home} is in use: stop `modelyard up` first, or give another --home") from error
        yield
