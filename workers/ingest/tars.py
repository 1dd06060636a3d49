"""A tar, plain or packed with gzip or zstd, as a tree of files, read in place."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa

from core.errors import Invalid
from workers.ingest.archives import MIB, Members, bomb, inflated_limit, refused, spool, truncated
from workers.ingest.names import safe_name

_BLOCK = 512


class TarTree:
    def __init__(self, path: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._offsets: dict[str, int] = {}
        size = path.stat().st_size
        members = Members(size)
        for info in _headers(path):
            name = safe_name(info.name)
            if info.isdir():
                continue
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
                raise refused(name, "is a link, a device or sparse: pack the file itself", "unsafe_member")
            if info.offset_data + info.size > size:
                raise truncated()
            if members.add(name, info.size, info.size):
                self._offsets[name] = info.offset_data
        self.sizes = members.sizes
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_Slice(self._fd, self._offsets[name], self.sizes[name]))

    def local_path(self, name: str) -> Path:
        return spool(self.open(name), self._scratch)

    def close(self) -> None:
        os.close(self._fd)


class _Slice(io.RawIOBase):
    """A stretch of a file, read with `preadv`, so that threads share no position."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._at, self._end = fd, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any writable buffer
        got = os.preadv(self._fd, [view[: self._end - self._at]], self._at)
        self._at += got
        return got


def inflate_tar(source: Path, packing: Literal["gzip", "zstd"], scratch: Path) -> Path:
    """A packed tar as a plain one under `scratch`, its bytes counted as they come."""
    packed_bytes = source.stat().st_size
    limit = inflated_limit(packed_bytes)
    path = scratch / "inflated.tar"
    written = 0
    with path.open("wb") as out:
        for data in _inflated(source, packing):
            written += len(data)
            if written > limit:
                raise bomb(f"{packed_bytes} bytes inflate to more than {limit}")
            out.write(data)
    with path.open("rb") as file:
        if not is_tar(file.read(_BLOCK)):
            raise Invalid(
                f"the {packing} file holds no tar; expected .tar.gz or .tar.zst, or the file unpacked",
                code="unknown_format",
            )
    return path


def is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _inflated(source: Path, packing: Literal["gzip", "zstd"]) -> Iterator[bytes]:
    try:
        with _opened(source, packing) as packed:
            while data := packed.read(MIB):
                yield data
    except EOFError as error:
        raise truncated() from error
    except (OSError, ValueError, zlib.error) as error:  # gzip's and Arrow's own errors are among these
        if "Truncated" in str(error):  # Arrow's word for a stream that ends early
            raise truncated() from error
        raise Invalid(
            f"the {packing} file does not inflate ({error}); upload it again", code="corrupt_archive"
        ) from error


def _opened(source: Path, packing: Literal["gzip", "zstd"]) -> "gzip.GzipFile | pa.NativeFile":
    if packing == "gzip":
        return gzip.GzipFile(source)
    return pa.input_stream(str(source), compression="zstd")


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """`tarfile` takes a damaged header for the end of the archive, so the end is checked here."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            while (info := tar.next()) is not None:
                yield info
                tar.members.clear()  # type: ignore[attr-defined]  # they would all stay in memory
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise truncated() from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise truncated()
