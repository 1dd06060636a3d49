"""The files of an upload by name, safely, whatever they are packed in.

Nothing is extracted under a name from the archive. Links, devices, encrypted members, twins, nested and
overlapping archives are refused; what inflates is bounded in bytes and in ratio.
"""

import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

from core.errors import Invalid
from workers.ingest.limits import MAX_FILE_BYTES
from workers.ingest.names import is_archive, is_noise, twin_key

MIB = 1024 * 1024
MAX_MEMBERS = 200_000
#: Bytes out over bytes in, looked at after the first MiB of output.
MAX_RATIO = 200


class Tree(Protocol):
    """Files by name, noise left out. `read` and `open` may be called from several threads."""

    sizes: dict[str, int]

    def read(self, name: str) -> bytes: ...

    def open(self, name: str) -> BinaryIO: ...

    def local_path(self, name: str) -> Path:
        """A file on disk with the member's bytes, for readers that seek."""
        ...

    def close(self) -> None: ...


class BareFile:
    """A file that is no archive: a tree of one."""

    def __init__(self, path: Path, filename: str) -> None:
        self._path = path
        self.sizes = {filename.replace("\\", "/").rsplit("/", 1)[-1] or "upload": path.stat().st_size}

    def read(self, name: str) -> bytes:
        return self._path.read_bytes()

    def open(self, name: str) -> BinaryIO:
        return self._path.open("rb")

    def local_path(self, name: str) -> Path:
        return self._path

    def close(self) -> None:
        """Nothing is held open."""


class Members:
    """Takes the members of an archive one by one and keeps the sizes of those that are data."""

    def __init__(self, archive_bytes: int) -> None:
        self.sizes: dict[str, int] = {}
        self._seen: set[str] = set()
        self._archive_bytes = archive_bytes
        self._inflated_bytes = 0

    def add(self, name: str, size: int, packed: int) -> bool:
        """Whether the member is data; raises `Invalid` where it may not be in an archive at all."""
        key = twin_key(name)
        if key in self._seen:
            raise refused(name, "is there twice (or differs only in case): rename one", "unsafe_path")
        self._seen.add(key)
        if len(self._seen) > MAX_MEMBERS:
            raise too_many_members()
        self._inflated_bytes += size
        if size > MIB and size > MAX_RATIO * packed:
            raise bomb(f"{name!r} inflates {packed} bytes to {size}")
        if self._inflated_bytes > inflated_limit(self._archive_bytes):
            raise bomb(f"{self._archive_bytes} bytes inflate to more than {self._inflated_bytes}")
        if is_noise(name):
            return False
        if is_archive(name):
            raise refused(name, "is an archive itself: unpack it first", "nested_archive")
        self.sizes[name] = size
        return True


def inflated_limit(archive_bytes: int) -> int:
    """The most that an archive of so many bytes may hold."""
    return min(MAX_FILE_BYTES, max(MIB, MAX_RATIO * archive_bytes))


def spool(file: BinaryIO, scratch: Path) -> Path:
    """Copies an open member to a new file under `scratch` and closes it."""
    with file, tempfile.NamedTemporaryFile(dir=scratch, delete=False) as out:
        while data := file.read(MIB):
            out.write(data)
    return Path(out.name)


def refused(name: str, why: str, code: str) -> Invalid:
    return Invalid(f"the archive's member {name!r} {why}", code=code)


def damaged(name: str, cause: object) -> Invalid:
    return Invalid(
        f"the archive's member {name!r} is damaged ({cause}); upload the archive again",
        code="corrupt_archive",
    )


def truncated() -> Invalid:
    return Invalid(
        "the archive is cut short: its end is missing or damaged; upload it again", code="truncated_archive"
    )


def too_many_members() -> Invalid:
    return Invalid(
        f"expected an archive of at most {MAX_MEMBERS} members; split the dataset", code="too_many_files"
    )


def bomb(what: str) -> Invalid:
    return Invalid(
        f"the archive inflates too far: {what}; at most {MAX_RATIO} times its size is taken",
        code="archive_bomb",
    )
