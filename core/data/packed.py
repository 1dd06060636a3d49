"""The packed cache: decoded images after the deterministic prefix of their transforms, end to end in one
file that jobs share. Memory does not grow with the dataset: pages come and go.

A file begins with numpy's form of an int64 [N, 4]: where each image starts in what follows, and its [C, H, W].
"""

import fcntl
import hashlib
import math
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.data.images import Mode, decode_image
from core.errors import Invalid

# N images, C channels, H height, W width

#: [C, H, W] uint8 -> [C, H, W] uint8
Prefix = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
#: Is told how many of how many images are done, at least every second; it may raise to stop.
Progress = Callable[[int, int], None]

#: A part of this name keeps files of another layout apart.
LAYOUT = "2"
#: A thread decodes so much at a time: of encoded bytes, and of images.
CHUNK_BYTES = 1024 * 1024
CHUNK_ROWS = 128
WAIT_S = 0.05
#: Linux: a private map of more than the machine's memory would be refused without it. Python 3.13 names it.
_MAP_NORESERVE = 0x4000


def silent(_done: int, _total: int) -> None:
    pass


class Packed:
    """An open file of the cache. It stays readable when the cache is pruned."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._index_N4: NDArray[np.int64] = np.lib.format.read_array(self._file)
        self._start = self._file.tell()

    def __len__(self) -> int:
        return len(self._index_N4)

    @property
    def is_one_size(self) -> bool:
        return bool((self._index_N4[:, 1:] == self._index_N4[0, 1:]).all())

    def array(self) -> NDArray[np.uint8]:
        """[N, C, H, W] of images of one size, memory-mapped. What is written to it stays in this process."""
        assert self.is_one_size
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        pages = mmap.mmap(self._file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        pixels = np.frombuffer(pages, np.uint8, offset=self._start)
        return pixels.reshape(len(self), *self._index_N4[0, 1:])

    def read(self, row: int) -> NDArray[np.uint8]:
        """A copy of one image, [C, H, W]; many threads may read at once. Not through a map, whose touched
        pages would count as this process's memory."""
        offset, *shape = self._index_N4[row].tolist()
        pixels = np.empty(math.prod(shape), np.uint8)
        came = 0
        while came < len(pixels):
            more = os.preadv(self._file.fileno(), [pixels[came:]], self._start + offset + came)
            if more == 0:
                raise OSError(f"{self._file.name} ends before image {row}: remove it, it is made anew")
            came += more
        return pixels.reshape(shape)


def packed_images(
    table: pa.Table,
    mode: Mode,
    prefix: Prefix,
    key: str,
    folder: Path,
    threads: int,
    *,
    may_differ: bool = False,
    progress: Progress = silent,
) -> Packed:
    """Read from the cache, or computed into it. `key` names the dataset's bytes and the prefix.

    Of jobs that miss at once one computes and the others wait; where it dies or fails, the next one does.
    Raises Invalid where images differ in size and may not, and what the decoder and `progress` raise.
    """
    path = folder / f"{hashlib.sha256(f'{LAYOUT}/{key}'.encode()).hexdigest()}.npy"
    while not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.tmp")
        with _claimed(temporary, lambda: progress(0, table.num_rows)) as file:
            if file is None:
                continue
            _write(file, _decoded(table.column("image"), mode, prefix, threads), table, may_differ, progress)
            os.replace(temporary, path)
    os.utime(path)  # what is used stays when the cache is pruned
    return Packed(path)


@contextmanager
def _claimed(temporary: Path, waiting: Callable[[], None]) -> Iterator[BinaryIO | None]:
    """The empty file, locked, to be renamed; None where another process was faster. The lock ends with its
    holder, and what a dead one left is written over."""
    with temporary.open("a+b") as file:
        while not _lock(file):
            waiting()
            time.sleep(WAIT_S)
        if path_is_of(temporary, file):
            try:
                file.truncate(0)
                yield file
            finally:
                if path_is_of(temporary, file):
                    temporary.unlink()
        else:
            yield None


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def path_is_of(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _write(
    file: BinaryIO,
    chunks: Iterator[list[NDArray[np.uint8]]],
    table: pa.Table,
    may_differ: bool,
    progress: Progress,
) -> None:
    index_N4 = np.zeros((table.num_rows, 4), np.int64)
    np.lib.format.write_array(file, index_N4)
    row = offset = 0
    for chunk in chunks:
        for pixels in chunk:
            index_N4[row] = offset, *pixels.shape
            if not may_differ and (index_N4[row, 1:] != index_N4[0, 1:]).any():
                first = tuple(index_N4[0, 1:].tolist())
                raise Invalid(f"image {row} is {pixels.shape} after its transforms, the first is {first}")
            file.write(np.ascontiguousarray(pixels).data)
            row, offset = row + 1, offset + pixels.nbytes
        progress(row, table.num_rows)
    file.flush()
    with open(file.fileno(), "r+b", closefd=False) as again:  # "a" would append
        again.seek(0)
        np.lib.format.write_array(again, index_N4)
    os.fsync(file.fileno())
