"""One IDX file, as MNIST is published: its header checked before anything is allocated, its rows in blocks.

The format is LeCun's (http://yann.lecun.com/exdb/mnist/, "The IDX file format"): two zero bytes, one for the
type, one for the number of axes, each axis as a big-endian uint32, then the numbers, big-endian, row-major.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from core.errors import Invalid
from workers.ingest.archives import MAX_RATIO, MIB, Tree, bomb
from workers.ingest.npy import MAX_AXES, MAX_ROW_ELEMENTS

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_MAGIC_BYTES = 4
_AXIS_BYTES = 4


class IdxFile:
    """`shape` is the whole array's, rows first. Raises `Invalid` for what is no IDX, or not of the size
    that its header says."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.name = name
        self._tree = tree
        with tree.open(name) as file:
            self._is_packed = file.read(2) == b"\x1f\x8b"
        with self._open() as file:
            self.shape, self.dtype = _read_header(file, name)
        self._check_size()

    @property
    def num_rows(self) -> int:
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    def blocks(self, block_bytes: int) -> Iterator[NDArray[Any]]:
        """The rows in order, as many at a time as fit into `block_bytes`, at least one."""
        row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        step = max(1, block_bytes // row_bytes)
        with self._open() as file:
            _read_header(file, self.name)
            for start in range(0, self.num_rows, step):
                rows = min(step, self.num_rows - start)
                data = _read(file, rows * row_bytes, self.name)
                block = np.frombuffer(data, self.dtype).reshape(rows, *self.row_shape)
                yield block.astype(self.dtype.newbyteorder("="), copy=False)
            if _read_some(file, 1, self.name):
                raise _wrong_size(self.name, "longer")

    def whole(self) -> NDArray[Any]:
        blocks = list(self.blocks(self._data_bytes))
        return blocks[0]

    @property
    def _data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _open(self) -> BinaryIO:
        file = self._tree.open(self.name)
        return cast(BinaryIO, _Unzipped(file)) if self._is_packed else file

    def _check_size(self) -> None:
        """What is packed says its size only at its end; it may not promise more than it can hold."""
        packed_bytes = self._tree.sizes[self.name]
        promised_bytes = _MAGIC_BYTES + _AXIS_BYTES * len(self.shape) + self._data_bytes
        if not self._is_packed and promised_bytes != packed_bytes:
            raise _wrong_size(self.name, "shorter" if promised_bytes > packed_bytes else "longer")
        if promised_bytes > MIB and promised_bytes > MAX_RATIO * packed_bytes:
            raise bomb(f"{self.name!r} promises {promised_bytes} bytes in {packed_bytes}")


class _Unzipped(gzip.GzipFile):
    """A gzip stream that closes the member under it."""

    def __init__(self, member: BinaryIO) -> None:
        super().__init__(fileobj=member, mode="rb")
        self._member = member

    def close(self) -> None:
        super().close()
        self._member.close()


def _read_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    magic = _read(file, _MAGIC_BYTES, name)
    code, num_axes = magic[2], magic[3]
    if magic[:2] != b"\0\0" or code not in DTYPES:
        raise Invalid(
            f"{name}: expected an IDX file, which begins with 00 00 and a type of "
            f"{', '.join(f'{known:02x}' for known in DTYPES)}; it begins with {magic.hex(' ')}",
            code="bad_idx",
        )
    if not 1 <= num_axes <= MAX_AXES:
        raise Invalid(f"{name}: expected 1 to {MAX_AXES} axes, its header says {num_axes}", code="bad_idx")
    axes = np.frombuffer(_read(file, _AXIS_BYTES * num_axes, name), ">u4").tolist()
    if min(axes) < 1 or math.prod(axes[1:]) > MAX_ROW_ELEMENTS:
        raise Invalid(
            f"{name}: expected at least one row, and 1 to {MAX_ROW_ELEMENTS} elements in each; "
            f"its header says {axes}",
            code="bad_idx",
        )
    return tuple(axes), np.dtype(DTYPES[code])


def _read(file: BinaryIO, size: int, name: str) -> bytes:
    data = _read_some(file, size, name)
    if len(data) != size:
        raise _wrong_size(name, "shorter")
    return data


def _read_some(file: BinaryIO, size: int, name: str) -> bytes:
    """At most `size` bytes; a gzip stream inflates no further than is asked for."""
    try:
        return file.read(size)
    except (EOFError, OSError, zlib.error) as error:
        raise Invalid(
            f"{name}: the gzip stream is damaged ({error}); upload it again", code="corrupt_archive"
        ) from error


def _wrong_size(name: str, how: str) -> Invalid:
    return Invalid(f"{name}: the file is {how} than its header says; download it again", code="bad_idx")
