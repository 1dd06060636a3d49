"""The packed cache: decoded images after the deterministic prefix of their transforms, end to end in one
file that jobs share. Memory does not grow with the dataset: pages come and go.

A file begins with an int64 [N, 4] in numpy's form: where each image starts in what follows, and its
[C, H, W].
"""

import fcntl
import hashlib
import math
import mmap
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.data.images import Mode, decode_image
from core.errors import Invalid

# N images, C channels, H height, W width

#: [C, H, W] uint8 -> [C, H, W] uint8
Prefix = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
#: Some images [C, H, W], or [B, C, H, W].
Chunk = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
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
        self._path = path
        with path.open("rb") as file:
            self._index_N4: NDArray[np.int64] = np.lib.format.read_array(file)
            self._start = file.tell()
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._index_N4)

    @property
    def is_one_size(self) -> bool:
        return bool((self._index_N4[:, 1:] == self._index_N4[0, 1:]).all())

    def array(self) -> NDArray[np.uint8]:
        """[N, C, H, W] of images of one size, memory-mapped. What is written to it stays in this process."""
        assert self.is_one_size
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        pages = mmap.mmap(self._descriptor, 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        pixels = np.frombuffer(pages, np.uint8, offset=self._start)
        return pixels.reshape(len(self), *self._index_N4[0, 1:])

    def read(self, row: int) -> NDArray[np.uint8]:
        """A copy of one image, [C, H, W]; many threads may read at once. Not through a map, whose touched
        pages would count as this process's memory."""
        offset, *shape = self._index_N4[row].tolist()
        pixels = np.empty(math.prod(shape), np.uint8)
        came = 0
        while came < len(pixels):
            more = os.preadv(self._descriptor, [pixels[came:].data], self._start + offset + came)
            if more == 0:
                raise OSError(f"{self._path} ends before image {row}: remove it, it is made anew")
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
    """The images of a dataset, by `packed`. Raises what the decoder raises."""

    def decode() -> Iterator[list[NDArray[np.uint8]]]:
        return _decoded(table.column("image"), mode, prefix, threads)

    return packed(decode, table.num_rows, key, folder, may_differ=may_differ, progress=progress)


def packed(
    make: Callable[[], Iterator[Chunk]],
    num_rows: int,
    key: str,
    folder: Path,
    *,
    may_differ: bool = False,
    progress: Progress = silent,
) -> Packed:
    """Read from the cache, or made into it, some images after the other. `key` names the dataset's bytes and
    the prefix.

    Of jobs that miss at once one computes and the others wait; where it dies or fails, the next one does.
    Raises Invalid where images differ in size and may not, and what `make` and `progress` raise.
    """
    path = folder / f"{hashlib.sha256(f'{LAYOUT}/{key}'.encode()).hexdigest()}.npy"
    while (found := _opened(path)) is None:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.tmp")
        with _claimed(temporary, lambda: progress(0, num_rows)) as file:
            if file is None or path.exists():  # another process was faster
                continue
            _write(file, make(), num_rows, may_differ, progress)
            os.replace(temporary, path)
    if not may_differ and not found.is_one_size:
        raise Invalid("the images differ in size, and their transforms leave it so: Resize them")
    return found


def _opened(path: Path) -> Packed | None:
    try:
        os.utime(path)  # what is used stays when the cache is pruned
        return Packed(path)
    except FileNotFoundError:
        return None


@contextmanager
def _claimed(temporary: Path, waiting: Callable[[], None]) -> Iterator[BinaryIO | None]:
    """The empty file, locked, to be renamed; None where it was renamed or removed while we waited. The lock
    ends with its holder, and what a dead one left is written over."""
    with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        while not _lock(file):
            waiting()
            time.sleep(WAIT_S)
        if not _is_named(temporary, file):
            yield None
            return
        try:
            file.truncate(0)
            yield file
        finally:
            if _is_named(temporary, file):
                temporary.unlink()


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _write(
    file: BinaryIO,
    chunks: Iterator[Chunk],
    num_rows: int,
    may_differ: bool,
    progress: Progress,
) -> None:
    index_N4 = np.zeros((num_rows, 4), np.int64)
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
        progress(row, num_rows)
    file.seek(0)
    np.lib.format.write_array(file, index_N4)
    file.flush()
    os.fsync(file.fileno())


def _decoded(
    column: pa.ChunkedArray, mode: Mode, prefix: Prefix, threads: int
) -> Iterator[list[NDArray[np.uint8]]]:
    """All images in order, some at a time; threads are a few chunks ahead, and never more."""

    def decode(rows: range) -> list[NDArray[np.uint8]]:
        return [prefix(decode_image(column[row].as_py(), mode)) for row in rows]

    pool = ThreadPoolExecutor(threads)  # Pillow decodes without the interpreter's lock
    waiting: deque[Future[list[NDArray[np.uint8]]]] = deque()
    try:
        for rows in _chunks(column):
            waiting.append(pool.submit(decode, rows))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(column: pa.ChunkedArray) -> Iterator[range]:
    sizes = pc.binary_length(column).to_numpy()
    start = size_bytes = 0
    for row, size in enumerate(sizes):
        if row > start and (size_bytes + size > CHUNK_BYTES or row - start >= CHUNK_ROWS):
            yield range(start, row)
            start, size_bytes = row, 0
        size_bytes += size
    yield range(start, len(sizes))
