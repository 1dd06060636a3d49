"""Files of a local storage held by hard links: what the service or a worker removes meanwhile stays here.

What a key holds never changes once written, so a link taken at any time is the file.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backups.named import NamedFile
from core.storage.keys import path_below

_PREFIX = ".backup-"


class Held:
    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._links: dict[str, Path] = {}

    def hold(self, files: Iterable[NamedFile]) -> list[NamedFile]:
        """Those that are not there."""
        missing = []
        for file in files:
            if file.key in self._links:
                continue
            link = self._folder / str(len(self._links))
            try:
                _link(path_below(self._root, file.key), link)
            except (FileNotFoundError, NotADirectoryError):
                missing.append(file)
            else:
                self._links[file.key] = link
        return missing

    def path(self, key: str) -> Path | None:
        return self._links.get(key)


@contextmanager
def holding(root: Path) -> Iterator[Held]:
    """Until the block ends. The links are in a hidden folder of the storage, which must be on the same file
    system; what a backup that was killed has left there goes first."""
    for left in root.glob(f"{_PREFIX}*"):
        _remove_abandoned(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Held(root, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _link(source: Path, link: Path) -> None:
    try:
        os.link(source, link)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, link)


def _remove_abandoned(folder: Path) -> None:
    """Whoever still makes a backup holds a lock on its folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
