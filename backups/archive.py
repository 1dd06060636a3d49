"""The file itself: a zip of `about.json`, `modelyard.db`, `files/<storage key>` and, last, `manifest.json`.

What is not whole has no manifest, and a file appears under its name only once it is whole and durable.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from backups import Refused
from core.storage.durable import fsync_file, fsync_folder

FORMAT = 1
ABOUT, DATABASE, MANIFEST = "about.json", "modelyard.db", "manifest.json"
FILES = "files/"
PIECE_BYTES = 1024 * 1024

#: Is told of each piece that went by, in bytes.
Told = Callable[[int], None]


class About(msgspec.Struct, frozen=True):
    """`revision` is that of the schema, `database` the kind it was read from. `has_files` is false where the
    files stay in a store that has backups of its own."""

    format: int
    version: str
    revision: str
    database: str
    has_files: bool
    created_at: datetime


class Member(msgspec.Struct, frozen=True):
    """`size` in bytes."""

    name: str
    size: int
    sha256: str


class Writer:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members: list[Member] = []

    def add(self, name: str, path: Path, told: Told, *, is_packed: bool = False) -> str:
        """Its SHA-256. `is_packed`: deflate it, which weights and Arrow files do not repay."""
        how = zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        entry.compress_type = how
        entry.external_attr = 0o600 << 16
        with path.open("rb") as source, self._archive.open(entry, "w", force_zip64=True) as target:
            size, sha256 = copy(source, target.write, told)
        self._members.append(Member(name, size, sha256))
        return sha256

    def add_json(self, name: str, value: object) -> None:
        encoded = msgspec.json.encode(value)
        self._archive.writestr(name, encoded)
        self._members.append(Member(name, len(encoded), hashlib.sha256(encoded).hexdigest()))

    def seal(self) -> None:
        self._archive.writestr(MANIFEST, msgspec.json.encode(self._members))


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A new file at `path`, for its owner's eyes alone: whole at the end of the block, or not there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", compresslevel=1) as archive:
            writer = Writer(archive)
            yield writer
            writer.seal()
        fsync_file(beside)
        os.link(beside, path)  # unlike a rename, refuses to take the place of another file
        fsync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


class Reader:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        try:
            self.about = msgspec.json.decode(archive.read(ABOUT), type=About)
            self.members = msgspec.json.decode(archive.read(MANIFEST), type=list[Member])
        except (KeyError, msgspec.DecodeError) as error:
            raise Refused(f"{path} is no whole backup: {error}; take another one") from error
        if self.about.format != FORMAT:
            raise Refused(
                f"{path} has the format {self.about.format}, this version reads {FORMAT}; "
                f"restore it with Modelyard {self.about.version}"
            )

    @property
    def num_bytes(self) -> int:
        return sum(member.size for member in self.members)

    def files(self) -> Iterator[tuple[str, Member]]:
        """Storage keys and what holds them."""
        for member in self.members:
            if member.name.startswith(FILES):
                yield member.name.removeprefix(FILES), member

    def verify(self, told: Told) -> None:
        """Reads all of it. Raises Refused for a file that is not what was written."""
        for member in self.members:
            self._read(member, lambda _piece: None, told)

    def extract(self, member: Member, target: Path, told: Told) -> None:
        with target.open("xb") as file:
            self._read(member, file.write, told)

    def database(self) -> Member:
        return next(member for member in self.members if member.name == DATABASE)

    def _read(self, member: Member, write: Callable[[bytes], object], told: Told) -> None:
        try:
            with self._archive.open(member.name) as source:
                found = copy(source, write, told)
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise Refused(f"the backup is damaged at {member.name}: {error}; take another one") from error
        if found != (member.size, member.sha256):
            raise Refused(
                f"the backup is damaged at {member.name}: its size or SHA-256 is not that in the "
                "manifest; take another one"
            )


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Raises Refused for what is no whole backup."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Reader(archive, path)
    except zipfile.BadZipFile as error:
        raise Refused(f"{path} is no whole backup: {error}; take another one") from error


def copy(source: IO[bytes], write: Callable[[bytes], object], told: Told) -> tuple[int, str]:
    """Size in bytes and SHA-256 of what went by."""
    size, digest = 0, hashlib.sha256()
    while piece := source.read(PIECE_BYTES):
        write(piece)
        digest.update(piece)
        size += len(piece)
        told(len(piece))
    return size, digest.hexdigest()
