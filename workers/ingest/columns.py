"""A table's columns: what type they take over all rows, and their statistics over the training rows."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.data.manifest import MAX_LISTED_VALUES, MAX_UNSEEN_VALUES, ColumnStats
from core.errors import Invalid
from workers.ingest.repeats import Repeats

#: The types of a dataset's columns, by the names that the manifest uses.
TYPES: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
}

# Distinct values are listed only while their text stays under this, so that a manifest stays small.
_MAX_LISTED_CHARACTERS = 1024 * 1024


def narrow(known: str | None, cells: pa.StringArray) -> str | None:
    """The narrowest type that holds these cells and all before, which were `known`; None while every cell
    was missing. Only `true` and `false` in any case are bool; dates stay strings."""
    cells = cells.drop_null()
    if len(cells) == 0 or known == "string":
        return known
    if known in (None, "bool") and _are_bools(cells):
        return "bool"
    if known == "bool":
        return "string"
    for candidate in ("int64", "float64"):
        if (known, candidate) != ("float64", "int64") and _parses(cells, TYPES[candidate]):
            return candidate
    return "string"


def unite(name: str, first: str | None, second: str | None) -> str | None:
    """One type for a column that two files type apart; raises `Invalid` where there is none."""
    if first == second or second is None:
        return first
    if first is None:
        return second
    if {first, second} == {"int64", "float64"}:
        return "float64"
    raise Invalid(
        f"expected one type in column {name!r}, one file has {first} and another {second}; write both alike",
        code="column_type",
    )


def convert(cells: pa.Array, dtype: str) -> pa.Array:
    """Cells of strings or of a narrower type as `dtype`; NaN becomes missing."""
    if dtype == "bool" and pa.types.is_string(cells.type):
        return pc.equal(pc.utf8_lower(cells), "true")
    converted = pc.cast(cells, TYPES[dtype])
    if dtype == "float64":
        converted = pc.if_else(pc.is_nan(converted), pa.scalar(None, pa.float64()), converted)
    return converted


def dtype_name(dtype: pa.DataType) -> str:
    return next(name for name, known in TYPES.items() if known == dtype)


def missing_beside(stats: Mapping[str, Mapping[str, ColumnStats]]) -> dict[str, dict[str, int]]:
    """`Manifest.splits_missing` from the statistics by split and column."""
    found = {
        split: {name: column.missing for name, column in columns.items() if column.missing}
        for split, columns in stats.items()
        if split != "train"
    }
    return {split: missing for split, missing in found.items() if missing}


def unseen_beside(stats: Mapping[str, Mapping[str, ColumnStats]]) -> dict[str, dict[str, list[object]]]:
    """`Manifest.splits_unseen` from the statistics by split and column."""
    found: dict[str, dict[str, list[object]]] = {}
    for split, columns in stats.items():
        for name, column in columns.items():
            known, here = stats["train"][name].values, column.values
            if split == "train" or known is None or here is None:
                continue
            seen = {value for value, _ in known}
            unseen: list[object] = [
                value for value, _ in here if value not in seen and not isinstance(value, float)
            ]
            if unseen:
                found.setdefault(split, {})[name] = unseen[:MAX_UNSEEN_VALUES]
    return found


class Summary:
    """Statistics of one column, fed array by array.

    Mean and population standard deviation by the pairwise update of Chan, Golub, LeVeque (1979), eq. 2.1,
    so that a long column with a large mean keeps its digits.
    """

    def __init__(self, *, lists_values: bool = True) -> None:
        self._count = 0
        self._missing = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean
        self._min = math.inf
        self._max = -math.inf
        self._is_number = False
        self._values: dict[object, int] | None = {} if lists_values else None
        self._repeats = Repeats() if lists_values else None

    def add(self, cells: pa.Array) -> None:
        self._missing += cells.null_count
        present = cells.drop_null()
        if len(present) == 0:
            return
        self._list_values(present)
        if pa.types.is_integer(present.type) or pa.types.is_floating(present.type):
            with np.errstate(over="ignore", invalid="ignore"):  # 1e300 squared: the deviation is not a number
                self._add_numbers(present.to_numpy(zero_copy_only=False).astype(np.float64))
        self._count += len(present)

    def result(self) -> ColumnStats:
        values = None
        if self._values is not None:
            values = sorted(self._values.items(), key=lambda item: item[0])  # type: ignore[arg-type,return-value]  # one type a column
        if not self._is_number:
            return ColumnStats(
                count=self._count, missing=self._missing, values=values, repeats=self._repeats_beside(values)
            )
        return ColumnStats(
            count=self._count,
            missing=self._missing,
            mean=self._mean,
            std=math.sqrt(self._squares / self._count),
            min=self._min,
            max=self._max,
            values=values,
            repeats=self._repeats_beside(values),
        )

    def _repeats_beside(self, values: list[tuple[object, int]] | None) -> list[tuple[int, int]] | None:
        return self._repeats.result() if values is None and self._repeats is not None else None

    def _add_numbers(self, numbers: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
        self._is_number = True
        before, added = self._count, len(numbers)
        mean = float(numbers.mean())
        delta = mean - self._mean
        self._squares += float(((numbers - mean) ** 2).sum()) + delta**2 * before * added / (before + added)
        self._mean += delta * added / (before + added)
        self._min = min(self._min, float(numbers.min()))
        self._max = max(self._max, float(numbers.max()))

    def _list_values(self, present: pa.Array) -> None:
        if pa.types.is_floating(present.type):
            self._repeats = None
        if self._values is None and self._repeats is None:
            return
        counts = present.value_counts()
        if self._repeats is not None:
            self._repeats.add(counts)
        if self._values is None:
            return
        if len(counts) <= MAX_LISTED_VALUES:
            for value, count in zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True):
                self._values[value] = self._values.get(value, 0) + count
            characters = sum(len(value) for value in self._values if isinstance(value, str))
            if len(self._values) <= MAX_LISTED_VALUES and characters <= _MAX_LISTED_CHARACTERS:
                return
        self._values = None


def _are_bools(cells: pa.StringArray) -> bool:
    return bool(pc.all(pc.is_in(pc.utf8_lower(cells), pa.array(["true", "false"]))).as_py())


def _parses(cells: pa.StringArray, dtype: pa.DataType) -> bool:
    try:
        pc.cast(cells, dtype)
    except pa.ArrowInvalid:
        return False
    return True
