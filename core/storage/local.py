"""Storage in a local folder, durable against a power cut."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from core.storage.durable import fsync_file, fsync_folder


class LocalStorage:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def adopt(self, key: str, path: Path) -> None:
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A rename is atomic only within a file system; scratch elsewhere costs one copy.
        if os.stat(path).st_dev != os.stat(target.parent).st_dev:
            beside = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copyfile(path, beside)
            path.unlink()
            path = beside
        fsync_file(path)
        os.replace(path, target)
        self._fsync_folders(target.parent)

    def fetch(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already
                break

    def list(self, prefix: str) -> Iterator[str]:
        for path in sorted(self._path(prefix).rglob("*")):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"a storage key stays below its root, got {key!r}")
        return path

    def _fsync_folders(self, folder: Path) -> None:
        """A new name is durable once every folder on its way is."""
        while True:
            fsync_folder(folder)
            if folder == self.root or folder == self.root.resolve():
                return
            folder = folder.parent
