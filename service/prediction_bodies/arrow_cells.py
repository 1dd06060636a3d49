"""A column of an Arrow table as the values that JSON would hold."""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import Invalid, TooLarge

#: Texts and images of a request, once unpacked: views and dictionaries name the same bytes many times.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024


class Allowance:
    """How much of texts and images a request may still unpack."""

    def __init__(self) -> None:
        self._left = MAX_UNPACKED_BYTES

    def unpack(self, cells: pa.Array) -> list[Any]:
        """Strings or bytes, None where missing. Raises TooLarge before there is more than is allowed."""
        values = []
        for cell in cells:
            value = cell.as_py()
            if value is not None:
                self._left -= len(value)
                if self._left < 0:
                    raise TooLarge(
                        f"The rows hold more than {MAX_UNPACKED_BYTES} bytes once unpacked. Send fewer."
                    )
            values.append(value)
        return values


def cells_of(cells: pa.Array, name: str, allowance: Allowance) -> list[Any]:
    """Numbers, truths and strings, None where missing or NaN; dates and times as ISO strings, decimals as
    floats, as a dataset of Parquet holds them. Raises Invalid for a type that a table has none of."""
    kind, types = cells.type, pa.types
    if types.is_dictionary(kind):
        return _looked_up(cells, name, allowance)
    if types.is_null(kind):
        return [None] * len(cells)
    if types.is_boolean(kind) or types.is_integer(kind):
        return list(cells.to_pylist())
    if types.is_floating(kind) or types.is_decimal(kind):
        numbers = _cast(cells, pa.float64(), name).to_pylist()
        return [None if value is None or math.isnan(value) else value for value in numbers]
    if types.is_temporal(kind):
        return allowance.unpack(_cast(cells, pa.string(), name))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return allowance.unpack(cells)
    raise _unsupported(kind, name)


def _looked_up(cells: pa.DictionaryArray, name: str, allowance: Allowance) -> list[Any]:
    """Each word that is used becomes one object, however many rows have it."""
    if pa.types.is_dictionary(cells.type.value_type):
        raise _unsupported(cells.type, name)
    places = cells.indices.to_pylist()
    used = sorted({place for place in places if place is not None})
    word_at = {place: cells_of(cells.dictionary.slice(place, 1), name, allowance)[0] for place in used}
    return [None if place is None else word_at[place] for place in places]


def _cast(cells: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    try:
        return pc.cast(cells, kind)
    except pa.ArrowException as error:  # a time that no calendar has
        raise _unsupported(cells.type, name) from error


def _unsupported(kind: pa.DataType, name: str) -> Invalid:
    return Invalid(
        f"Expected numbers, bools or strings in column {name[:100]!r}, got {str(kind)[:100]}. Convert it.",
        code="unsupported_column",
    )
