"""A column of nested numbers as one numpy array a row."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.data.instances import MAX_DIMS, BadInstance
from core.errors import Invalid, TooLarge

#: Numbers in all arrays of a request: a byte of the stream may be eight of them (bools).
MAX_NUMBERS = 32 * 1024 * 1024

Array = NDArray[Any] | BadInstance


def arrays_of(cells: pa.Array) -> Iterator[Array]:
    """Of fixed-size lists, tensors of one shape, lists, or numbers alone; in the dtype that they have. Raises
    Invalid for any other type."""
    shape: list[int] = []
    if isinstance(cells.type, pa.FixedShapeTensorType):
        if cells.type.permutation not in (None, list(range(len(cells.type.shape)))):
            raise Invalid(
                "Expected tensors in the order of their shape, got permuted ones. Send them as they are."
            )
        shape = list(cells.type.shape)
        cells = cells.storage
    _require_numbers(cells)
    return (_array_of(cell, shape) for cell in cells)


def _require_numbers(cells: pa.Array) -> None:
    leaf = _leaf(cells.type)
    if not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)):
        raise Invalid(
            f"Expected images as bytes, or lists of numbers nested at most {MAX_DIMS} deep, got a column of "
            f"{str(cells.type)[:100]}.",
            code="unsupported_column",
        )
    while pa.types.is_nested(cells.type):
        cells = cells.flatten()
    if len(cells) > MAX_NUMBERS:
        raise TooLarge(f"The arrays of a request hold at most {MAX_NUMBERS} numbers. Send fewer rows.")


def _leaf(kind: pa.DataType) -> pa.DataType:
    """What stands inside the lists; another nested type where they are not lists, or nest too deep."""
    for _ in range(MAX_DIMS):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            break
        kind = kind.value_type
    return kind


def _array_of(cell: pa.Scalar, shape: list[int]) -> Array:
    """`shape` is a tensor's; lists say theirs. Most are a view of the stream's own bytes."""
    if not cell.is_valid:
        return BadInstance("expected an array, got null")
    if not pa.types.is_nested(cell.type):
        return np.array(cell.as_py())
    values = cell.values
    sizes = [len(values)]
    while pa.types.is_nested(values.type) and not values.null_count:
        lengths = pc.min_max(pc.list_value_length(values)).as_py()
        if lengths["min"] != lengths["max"]:
            return BadInstance("expected nested lists of equal lengths")
        sizes.append(lengths["min"] or 0)
        values = values.flatten()
    if values.null_count:
        return BadInstance("expected numbers, got null among them")
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape or sizes)
    return array
