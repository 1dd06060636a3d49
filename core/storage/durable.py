"""What makes bytes survive a power cut, and what tells that they did."""

import errno
import hashlib
import os
from pathlib import Path

import msgspec


class StoredFile(msgspec.Struct, frozen=True):
    """A finished local file; `size` in bytes."""

    path: str
    size: int
    sha256: str


class Damaged(Exception):
    """A file is not what was written: it is gone, or its size or hash differs."""


def is_full(error: OSError) -> bool:
    """The disk, or the owner's part of it, has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


fsync_folder = fsync_file


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> StoredFile:
    return StoredFile(str(path), path.stat().st_size, sha256_file(path))


def verify(path: Path, size: int, sha256: str) -> None:
    """Size first, since it is cheap; then the hash. Raises Damaged."""
    if path.stat().st_size != size:
        raise Damaged(f"{path.name}: expected {size} bytes, got {path.stat().st_size}")
    if sha256_file(path) != sha256:
        raise Damaged(f"{path.name}: its sha256 is not the one written beside it")
