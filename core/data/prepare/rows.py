"""Columns as `prepare` takes them, from Arrow or from row objects; what is wrong with a row object."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.prepare.dates import EXAMPLE, is_date
from core.data.prepare.fitted import Columns, FittedColumn
from core.data.targets import column_kind
from core.errors import Invalid


def columns_from_arrow(table: Any, names: Sequence[str]) -> Columns:
    """From a pyarrow Table (or a slice of one)."""
    result: dict[str, NDArray[Any]] = {}
    for name in names:
        column = table.column(name)
        if column_kind(str(column.type).replace("large_", "")) == "string":
            result[name] = np.array(column.to_pylist(), dtype=object)
        else:
            numbers = column.cast("float64", safe=False)  # integers over 2**53 are rounded, as JSON's are
            result[name] = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    return result


def columns_from_rows(rows: Sequence[Mapping[str, Any]], fitted: Sequence[FittedColumn]) -> Columns:
    """From row objects that passed `check_row`."""
    return {
        column.name: np.array(
            [_missing(column) if row.get(column.name) is None else row[column.name] for row in rows],
            dtype=object if column.kind == "string" else np.float64,
        )
        for column in fitted
    }


def columns_from_arrays(
    arrays: Mapping[str, NDArray[Any]], num_rows: int, fitted: Sequence[FittedColumn]
) -> Columns:
    """From one array [N] a column, of numbers, of bools, or of objects that are UTF-8 or None. NaN is a
    missing number, and a column that isn't there is missing in every row. Raises Invalid that names column
    and row."""
    return {
        column.name: _checked(column, arrays[column.name])
        if column.name in arrays
        else _all_missing(column, num_rows)
        for column in fitted
    }


def check_row(row: object, fitted: Sequence[FittedColumn]) -> str | None:
    """What is wrong with a row object a client sent; None where nothing is."""
    if not isinstance(row, Mapping):
        return f"expected an object of column to value, got {type(row).__name__}"
    names = {column.name for column in fitted}
    unknown = sorted(set(map(str, row)) - names)
    if unknown:
        return f"unknown columns {unknown}; the model takes {sorted(names)}"
    for column in fitted:
        value = row.get(column.name)
        if value is None and column.may_be_missing:
            continue
        wrong = _wrong(column, value)
        if wrong is not None:
            return wrong
    return None


def _wrong(column: FittedColumn, value: Any) -> str | None:
    name = repr(column.name)
    match column.kind, value:
        case _, None:
            return f"{name} is missing and the training rows had it always"
        case "string", str():
            if column.is_date and not is_date(value):
                return f"{name}: expected an ISO 8601 date such as {EXAMPLE}, got {value[:50]!r}"
            return None if _is_unicode(value) else f"{name}: expected text, got half of a surrogate pair"
        case "string", _:
            return f"{name}: expected a string, got {type(value).__name__}"
        case "bool", bool():
            return None
        case "bool", _:
            return f"{name}: expected true or false, got {type(value).__name__}"
        case "number", int() | float() if not isinstance(value, bool):
            if _is_finite(value):
                return None
            return f"{name}: expected a finite number, got one that float64 cannot hold"
        case _:
            return f"{name}: expected a number, got {type(value).__name__}"


def _checked(column: FittedColumn, values_N: NDArray[Any]) -> NDArray[Any]:
    if column.kind == "string":
        return _texts(column, values_N)
    is_taken = values_N.dtype.kind == "b" if column.kind == "bool" else values_N.dtype.kind in "iuf"
    if not is_taken:
        expected = "true or false" if column.kind == "bool" else "numbers"
        came = "strings" if values_N.dtype == object else f"{values_N.dtype} values"
        raise Invalid(f"{column.name!r}: expected {expected}, got {came}.", code="bad_instance")
    numbers_N = values_N.astype(np.float64)  # integers over 2**53 are rounded, as JSON's are
    wrong_N = np.isinf(numbers_N) if column.may_be_missing else ~np.isfinite(numbers_N)
    if wrong_N.any():
        row = int(wrong_N.argmax())
        value = None if np.isnan(numbers_N[row]) else float(numbers_N[row])
        raise _bad_cell(column, row, value)
    return numbers_N


def _texts(column: FittedColumn, values_N: NDArray[Any]) -> NDArray[Any]:
    if values_N.dtype != object:
        raise Invalid(f"{column.name!r}: expected strings, got {values_N.dtype} values.", code="bad_instance")
    texts_N = np.empty(len(values_N), dtype=object)
    for row, raw in enumerate(values_N):
        try:
            text = None if raw is None else raw.decode()
        except UnicodeDecodeError as error:
            raise Invalid(
                f"row {row}: {column.name!r}: expected text in UTF-8 ({error}).", code="bad_instance"
            ) from error
        if (text is None and not column.may_be_missing) or (text is not None and _wrong(column, text)):
            raise _bad_cell(column, row, text)
        texts_N[row] = text
    return texts_N


def _all_missing(column: FittedColumn, num_rows: int) -> NDArray[Any]:
    assert column.may_be_missing, column.name
    return np.full(num_rows, _missing(column), dtype=object if column.kind == "string" else np.float64)


def _bad_cell(column: FittedColumn, row: int, value: object) -> Invalid:
    return Invalid(f"row {row}: {_wrong(column, value)}.", code="bad_instance")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of over 308 digits
        return False


def _is_unicode(value: str) -> bool:
    """JSON may escape a surrogate without its other half, which is no character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _missing(column: FittedColumn) -> float | None:
    return None if column.kind == "string" else float("nan")
