"""Keeps the packed cache within its bound. Loads no numpy, so that a worker's own process stays small."""

import contextlib
import time
from pathlib import Path

#: A file that is being written changes all the time.
ABANDONED_S = 24 * 3600.0


def prune(folder: Path, keep_bytes: int) -> None:
    """Removes what was used longest ago until at most `keep_bytes` stay, and what a killed writer left.
    A job that has a file mapped keeps its pages. Another worker may prune the same folder."""
    if not folder.is_dir():
        return
    sizes: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            sizes.append((found.st_mtime, found.st_size, path))
    total = 0
    for modified, size, path in sorted(sizes, reverse=True):
        is_abandoned = path.suffix == ".tmp" and time.time() - modified > ABANDONED_S
        total += size
        if is_abandoned or (path.suffix == ".npy" and total > keep_bytes):
            path.unlink(missing_ok=True)
