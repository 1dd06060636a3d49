"""Where a key stands below a folder."""

from pathlib import Path


def path_below(root: Path, key: str) -> Path:
    """`root` is resolved. Raises ValueError for a key that leads out of it."""
    path = (root / key).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"a storage key stays below its root, got {key!r}")
    return path
