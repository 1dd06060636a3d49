"""A zip as a tree of files, read in place."""

import io
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from core.errors import Invalid
from workers.ingest.archives import (
    MAX_MEMBERS,
    Members,
    bomb,
    damaged,
    refused,
    spool,
    too_many_members,
    truncated,
)
from workers.ingest.names import safe_name

_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_END_RECORD_BYTES = 22
_MAX_COMMENT_BYTES = 65_535
_LOCAL_HEADER_BYTES = 30
# The directory's bytes a member, generously; `zipfile` reads the whole of it into memory.
_DIRECTORY_BYTES_A_MEMBER = 400

_READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


class ZipTree:
    """Declared sizes are checked at the start, and a member never yields more than it declared."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._zip = _open_zip(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        size = path.stat().st_size
        _check_overlaps(self._zip.infolist(), size)
        members = Members(size)
        for info in self._zip.infolist():
            # `filename` is cut at the first NUL; `orig_filename` is what stands there.
            name = safe_name(info.orig_filename)
            _check_member(info)
            if not info.is_dir() and members.add(name, info.file_size, info.compress_size):
                self._infos[name] = info
        self.sizes = members.sizes

    def read(self, name: str) -> bytes:
        size = self.sizes[name]
        try:
            with self._zip.open(self._infos[name]) as file:
                # Asking for no more than was declared bounds what the inflater allocates.
                data = file.read(size)
        except _READ_ERRORS as error:
            raise damaged(name, error) from error
        if len(data) != size:
            raise damaged(name, "it ends early")
        return data

    def open(self, name: str) -> BinaryIO:
        try:
            raw = self._zip.open(self._infos[name])
        except _READ_ERRORS as error:
            raise damaged(name, error) from error
        return io.BufferedReader(_Member(raw, name))

    def local_path(self, name: str) -> Path:
        return spool(self.open(name), self._scratch)

    def close(self) -> None:
        self._zip.close()


class _Member(io.RawIOBase):
    """An open member whose errors name it."""

    def __init__(self, raw: IO[bytes], name: str) -> None:
        self._raw = raw
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any writable buffer
        try:
            data = self._raw.read(len(view))
        except _READ_ERRORS as error:
            raise damaged(self._name, error) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _open_zip(path: Path) -> zipfile.ZipFile:
    _check_directory_size(path)
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise truncated() from error
    except (NotImplementedError, ValueError, OSError) as error:
        raise Invalid(
            f"the zip's directory does not parse ({error}); pack it again", code="corrupt_archive"
        ) from error


def _check_directory_size(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_RECORD_BYTES - _MAX_COMMENT_BYTES))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END_RECORD_BYTES:
        raise truncated()
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    is_zip64 = directory_bytes == 0xFFFFFFFF  # its length stands elsewhere: the address space bounds it
    if not is_zip64 and directory_bytes > MAX_MEMBERS * _DIRECTORY_BYTES_A_MEMBER:
        raise too_many_members()


def _check_member(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(info.filename, "is a link or a device: pack the file itself", "unsafe_member")
    if info.flag_bits & 0x1:
        raise refused(info.filename, "is encrypted: pack it without a password", "encrypted_archive")
    if info.compress_type not in _METHODS:
        why = f"is packed with method {info.compress_type}: pack it with deflate"
        raise refused(info.filename, why, "unsupported_archive")


def _check_overlaps(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Members that share bytes inflate a small file without end; no packer writes them."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise bomb(f"{info.filename!r} overlaps another member")
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
    if end > size:
        raise truncated()
