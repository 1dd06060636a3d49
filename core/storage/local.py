"""Storage in a local folder, durable against a power cut."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from core.fault_points import reach
from core.storage.durable import fsync_file, fsync_folder
from core.storage.keys import path_below


class LocalStorage:
    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()

    def adopt(self, key: str, path: Path) -> None:
        target = path_below(self.root, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        fsync_file(path)
        reach("storage.written")
        try:
            os.replace(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A rename stays within a file system; scratch on another costs one copy.
            os.replace(_copied_beside(target, path), target)
            path.unlink()
        reach("storage.renamed")
        self._fsync_folders(target.parent)

    def fetch(self, key: str) -> Path:
        path = path_below(self.root, key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def delete(self, key: str) -> None:
        path = path_below(self.root, key)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            # The first level is everybody's: another may be about to put a folder into it.
            if self.root in (folder, folder.parent):
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already
                break

    def list(self, prefix: str) -> Iterator[str]:
        for path in sorted(path_below(self.root, prefix).rglob("*")):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def _fsync_folders(self, folder: Path) -> None:
        """A new name is durable once every folder on its way is."""
        while True:
            fsync_folder(folder)
            if folder == self.root:
                return
            folder = folder.parent


def _copied_beside(target: Path, path: Path) -> Path:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(path, beside)
        fsync_file(beside)
    except BaseException:  # a full disk: half a copy is of no use
        beside.unlink(missing_ok=True)
        raise
    return beside
