"""Where a job's event files for TensorBoard are: a folder on its worker's machine that `tensorboard --logdir`
can follow, and the same as an archive in storage."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from core.storage import Storage

_ROOT = "boards"


def runs_folder(home: Path) -> Path:
    return home / "runs"


def run_folder(home: Path, model: str, job_id: str) -> Path:
    return runs_folder(home) / model / job_id


def archive_key(job_id: str, fence: int, number: int) -> str:
    """An archive never changes; a later one of an attempt has a larger `number`, and sorts behind it."""
    return f"{_prefix(job_id)}/{fence:08}-{number:014}.zip"


def archives(storage: Storage, job_id: str) -> list[str]:
    """Their keys, the newest last."""
    return sorted(storage.list(_prefix(job_id)))


def all_archives(storage: Storage) -> Iterator[tuple[str, str]]:
    """Job and key of each that there is."""
    for key in storage.list(_ROOT):
        yield key.split("/")[1], key


def forget(storage: Storage, folder: Path, job_id: str) -> None:
    """A folder on another machine stays there."""
    for key in archives(storage, job_id):
        storage.delete(key)
    shutil.rmtree(folder, ignore_errors=True)


def _prefix(job_id: str) -> str:
    return f"{_ROOT}/{job_id}"
