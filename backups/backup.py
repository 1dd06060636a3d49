"""Making a backup beside whatever runs. Files are held before the rows are read and again after, so that
each row of the copy has its file, also where a training replaces its checkpoints meanwhile."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import migrations
from backups import Refused, archive, rows
from backups.held import Held, holding
from backups.named import NamedFile, board_files, named_files
from backups.progress import Progress
from core.db.engines import is_in_process, open_database
from core.db.models import utc_now
from core.settings import Settings
from core.storage import open_storage
from core.storage.local import LocalStorage

#: A file that goes between the two looks makes a third one needed; so many at most.
TRIES = 5


@dataclass
class Made:
    """`missing` and `damaged` are keys: of files that rows need and that are not in storage, and of those
    that are not what their row says."""

    num_files: int = 0
    num_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def back_up(
    settings: Settings, target: Path, progress: Progress, *, with_files: bool, allow_missing: bool
) -> Made:
    """Writes `target`. Raises Refused, and leaves nothing behind, where it cannot be whole."""
    url = settings.resolved_database_url()
    _require_room_for(target)
    _require_newest_schema(url)
    storage = _local_storage(settings) if with_files else None
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        copy = Path(folder) / archive.DATABASE
        about = archive.About(
            format=archive.FORMAT,
            version=version("modelyard"),
            revision=migrations.head(),
            database="sqlite" if is_in_process(url) else "postgresql",
            has_files=with_files,
            created_at=utc_now(),
        )
        if storage is None:
            progress.begin("reading the rows")
            rows.snapshot(url, copy, progress.rows)
            rows.require_sound(copy)
            return _write(target, about, copy, [], None, progress)
        with holding(storage.root) as held:
            missing = _snapshot_with_files(url, copy, storage, held, progress)
            if missing and not allow_missing:
                raise Refused(_say_missing(missing))
            rows.require_sound(copy)
            made = _write(target, about, copy, _named(copy, storage), held, progress)
            made.missing = [file.key for file in missing]
            return made


def _snapshot_with_files(
    url: str, copy: Path, storage: LocalStorage, held: Held, progress: Progress
) -> list[NamedFile]:
    """The files that the rows of the copy need and that are not there."""
    missing: list[NamedFile] = []
    for _ in range(TRIES):
        progress.begin("holding the files")
        held.hold(_named_by(url, storage))
        progress.begin("reading the rows")
        copy.unlink(missing_ok=True)
        rows.snapshot(url, copy, progress.rows)
        missing = [file for file in held.hold(_named(copy, storage)) if file.is_needed]
        if not missing:
            break
    return missing


def _write(
    target: Path,
    about: archive.About,
    copy: Path,
    named: Iterable[NamedFile],
    held: Held | None,
    progress: Progress,
) -> Made:
    made = Made()
    files = [(file, path) for file in named if held is not None and (path := held.path(file.key)) is not None]
    sizes = [path.stat().st_size for _, path in files]
    made.num_files, made.num_bytes = len(files), sum(sizes) + copy.stat().st_size
    progress.begin("writing", total_bytes=made.num_bytes)
    with archive.writing(target) as writer:
        writer.add_json(archive.ABOUT, about)
        writer.add(archive.DATABASE, copy, progress.bytes, is_packed=True)
        for file, path in files:
            sha256 = writer.add(f"{archive.FILES}{file.key}", path, progress.bytes)
            if file.sha256 not in (None, sha256):
                made.damaged.append(file.key)
    return made


def _named_by(url: str, storage: LocalStorage) -> Iterator[NamedFile]:
    """Each once."""
    database = open_database(url)
    try:
        with database.read() as session:
            yield from {
                file.key: file for file in chain(board_files(session, storage), named_files(session))
            }.values()
    finally:
        database.close()


def _named(copy: Path, storage: LocalStorage) -> list[NamedFile]:
    found = list(_named_by(f"sqlite:///{copy}", storage))
    rows.make_self_contained(copy)
    return found


def _require_room_for(target: Path) -> None:
    if target.exists():
        raise Refused(f"{target} is there already; name a new file, or remove it first")
    if not target.parent.is_dir():
        raise Refused(f"expected a folder at {target.parent}; make it, or name a file elsewhere")


def _require_newest_schema(url: str) -> None:
    if is_in_process(url) and not Path(rows.database_path(url)).is_file():
        raise Refused(
            f"there is no database at {rows.database_path(url)}; set MODELYARD_HOME, or give --home"
        )
    found = migrations.current(url)
    if found != migrations.head():
        raise Refused(
            f"the database is at revision {found or 'none'}, and this version backs up {migrations.head()}: "
            "back it up with the version that runs on it, or run `modelyard migrate` first"
        )


def _local_storage(settings: Settings) -> LocalStorage:
    url = settings.resolved_storage_url()
    storage = open_storage(url, settings.scratch() / "fetched")
    if not isinstance(storage, LocalStorage):
        raise Refused(
            f"the files are in {url}, which is not copied from here: turn on the bucket's versioning or "
            "replication (what a key holds never changes, so its files of any later time will do), "
            "and back up the rows with --rows-only"
        )
    return storage


def _say_missing(missing: list[NamedFile]) -> str:
    named = ", ".join(file.key for file in missing[:5]) + (", …" if len(missing) > 5 else "")
    return (
        f"rows need {len(missing)} files that are not in storage: {named}. Bring them back, delete what they "
        "belong to through the API, or back up what is there with --allow-missing"
    )
