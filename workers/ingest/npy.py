"""One .npy file: its header checked before anything is allocated, its rows read in blocks. Never a pickle."""

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core.errors import Invalid
from workers.ingest.archives import Tree

MAX_ROW_ELEMENTS = 50_000_000
MAX_AXES = 8

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class NpyFile:
    """`shape` is the whole array's, rows first. Raises `Invalid` for pickles and for what is no array."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.name = name
        self._tree = tree
        with tree.open(name) as file:
            self.shape, self._is_fortran, self.dtype = _read_header(file, name)
        if not 1 <= len(self.shape) <= MAX_AXES or any(side < 1 for side in self.shape):
            raise Invalid(
                f"{name}: expected rows along the first of at most {MAX_AXES} axes, got shape {self.shape}",
                code="bad_array",
            )
        if math.prod(self.row_shape) > MAX_ROW_ELEMENTS:
            raise Invalid(f"{name}: expected at most {MAX_ROW_ELEMENTS} elements a row", code="too_large")
        if self.num_rows * self.row_bytes > tree.sizes[name]:
            raise _cut_short(name)

    @property
    def num_rows(self) -> int:
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.dtype.itemsize

    def blocks(self, block_bytes: int) -> Iterator[NDArray[Any]]:
        """The rows in order, as many at a time as fit into `block_bytes`, at least one. An array in Fortran
        order has no rows in the file: it is read whole."""
        with self._tree.open(self.name) as file:
            _read_header(file, self.name)
            if self._is_fortran and len(self.shape) > 1:
                yield np.ascontiguousarray(self._take(file, self.shape[::-1]).T)
                return
            step = max(1, block_bytes // max(1, self.row_bytes))
            for start in range(0, self.num_rows, step):
                yield self._take(file, (min(step, self.num_rows - start), *self.row_shape))

    def whole(self) -> NDArray[Any]:
        return next(self.blocks(max(1, self.num_rows * self.row_bytes)))

    def _take(self, file: BinaryIO, shape: tuple[int, ...]) -> NDArray[Any]:
        wanted = math.prod(shape) * self.dtype.itemsize
        data = file.read(wanted)
        if len(data) != wanted:
            raise _cut_short(self.name)
        block = np.frombuffer(data, self.dtype).reshape(shape)
        return block.astype(self.dtype.newbyteorder("="), copy=False)


def _read_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        reader = _HEADER_READERS.get(version)
        if reader is None:
            raise ValueError(f"version {version} is for records with named fields")
        shape, is_fortran, dtype = reader(file)
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise Invalid(f"{name}: not a plain .npy array ({error}); save it again", code="bad_array") from error
    if dtype.hasobject:
        raise Invalid(
            f"{name}: expected numbers, got Python objects (a pickle), which are never loaded; "
            "convert them to a numeric array",
            code="pickle_refused",
        )
    return shape, is_fortran, dtype


def _cut_short(name: str) -> Invalid:
    return Invalid(f"{name}: the file is shorter than its header says; save it again", code="bad_array")
