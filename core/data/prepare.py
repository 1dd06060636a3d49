"""Tables to numbers: what `prepare` in a spec does, fitted on training rows, stored as numbers.

`Impute`, `Standardize` and `OneHot` are fitted into one `FittedColumn` for each input column; the
fitted columns are stored with the version, so that training and serving run the same code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.data.manifest import MAX_LISTED_VALUES, Manifest
from core.data.targets import ColumnKind, column_kind
from modelyard.specs import ProblemError

# N rows, F features

#: number and bool columns are float64 with NaN where missing, string columns objects with None.
Columns = Mapping[str, NDArray[Any]]

Selection = list[str] | Literal["*"]


class Impute(msgspec.Struct, tag_field="type", tag=True, forbid_unknown_fields=True, frozen=True):
    """Fills missing values. `mean` is for numbers."""

    columns: Selection = "*"
    strategy: Literal["mean", "most_frequent"] = "mean"


class Standardize(msgspec.Struct, tag_field="type", tag=True, forbid_unknown_fields=True, frozen=True):
    """(x - mean) / std with the training rows' mean and population standard deviation; a constant
    column is only centred."""

    columns: Selection = "*"


class OneHot(msgspec.Struct, tag_field="type", tag=True, forbid_unknown_fields=True, frozen=True):
    """One 0/1 feature for each value of the training split; an unknown value is all zeros."""

    columns: Selection = "*"


Step = Impute | Standardize | OneHot


class FittedColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fill, then standardise or spread: everything about one input column, as numbers."""

    name: str
    kind: ColumnKind
    fill: float | str | None = None
    mean: float = 0.0
    std: float = 1.0
    categories: list[Any] | None = None

    @property
    def width(self) -> int:
        return 1 if self.categories is None else len(self.categories)


@dataclass(frozen=True)
class Resolved:
    """`components` name every column they touch; `width` is F, the features that reach the net."""

    components: list[dict[str, Any]]
    width: int


def resolve_prepare(
    prepare: list[dict[str, Any]] | None,
    inputs: Sequence[str],
    manifest: Manifest,
    errors: list[ProblemError],
) -> Resolved:
    """Defaults: Standardize for numbers, one-hot for strings, mean or most frequent for what is missing.

    A given list is completed only by what a net cannot do without: one-hot for strings, a fill for
    columns with missing values.
    """
    before = len(errors)
    kinds = {name: column_kind(manifest.features[name].dtype) for name in inputs}
    steps = _decode(prepare, errors) if prepare is not None else [Standardize()]
    steps = [_expand(step, f"/prepare/{i}/columns", kinds, errors) for i, step in enumerate(steps)]
    if len(errors) > before:
        return Resolved([], 0)
    steps = _complete(steps, kinds, manifest)
    width = 0
    spread = {name for step in steps if isinstance(step, OneHot) for name in step.columns}
    for name in inputs:
        stats = manifest.columns[name]
        if name not in spread:
            width += 1
        elif stats.values is None:
            message = (
                f"{name!r} has over {MAX_LISTED_VALUES} distinct values, too many to spread: leave it out"
            )
            errors.append(ProblemError("/inputs", "too_many_categories", message))
        elif not stats.values:
            message = f"{name!r} has no value in the training split: leave it out"
            errors.append(ProblemError("/inputs", "empty_column", message))
        else:
            width += len(stats.values)
    return Resolved([msgspec.to_builtins(step) for step in steps], width)


def fit(
    components: list[dict[str, Any]], inputs: Sequence[str], columns: Columns, manifest: Manifest
) -> list[FittedColumn]:
    """Numbers from the training rows in `columns`; categories from the manifest, which counted the
    whole training split, so that the width does not depend on how rows are set aside."""
    steps = msgspec.convert(components, list[Step])
    return [_fit_column(name, steps, columns[name], manifest) for name in inputs]


def apply(fitted: Sequence[FittedColumn], columns: Columns) -> NDArray[np.float32]:
    """[N, F] float32, features in the order of `fitted`."""
    parts = [_apply_column(column, columns[column.name]) for column in fitted]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: callers look for that
        return np.concatenate(parts, axis=1, dtype=np.float32)


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
        if value is None:
            if column.fill is None:
                return f"{column.name!r} is missing and the training rows had it always"
        elif column.kind == "string" and not isinstance(value, str):
            return f"{column.name!r}: expected a string, got {type(value).__name__}"
        elif column.kind == "bool" and not isinstance(value, bool):
            return f"{column.name!r}: expected true or false, got {type(value).__name__}"
        elif column.kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{column.name!r}: expected a number, got {type(value).__name__}"
        elif column.kind == "number" and not _is_finite(value):
            return f"{column.name!r}: expected a finite number, got one that float64 cannot hold"
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of over 308 digits
        return False


def _decode(prepare: list[dict[str, Any]], errors: list[ProblemError]) -> list[Step]:
    steps: list[Step] = []
    for position, raw in enumerate(prepare):
        try:
            steps.append(msgspec.convert(raw, Step))
        except msgspec.ValidationError as error:
            message = f"{error}; known are Impute, Standardize, OneHot"
            errors.append(ProblemError(f"/prepare/{position}", "invalid_component", message))
    return steps


def _expand(step: Step, pointer: str, kinds: Mapping[str, ColumnKind], errors: list[ProblemError]) -> Step:
    """Writes `*` out as the columns that the step is for."""
    match step:
        case Standardize() | Impute(strategy="mean"):
            fitting = {"number", "bool"} if isinstance(step, Impute) else {"number"}
        case OneHot():
            fitting = {"string"}
        case _:
            fitting = {"number", "bool", "string"}
    if step.columns == "*":
        return msgspec.structs.replace(
            step, columns=[name for name, kind in kinds.items() if kind in fitting]
        )
    allowed = fitting | ({"number", "bool"} if isinstance(step, OneHot) else set())
    for position, name in enumerate(step.columns):
        if name not in kinds:
            message = f"{name!r} is not among the inputs {sorted(kinds)}"
            errors.append(ProblemError(f"{pointer}/{position}", "unknown_column", message))
        elif kinds[name] not in allowed:
            kind, takes = kinds[name], " and ".join(sorted(allowed))
            message = f"{type(step).__name__} is for {takes} columns, {name!r} is {kind}"
            errors.append(ProblemError(f"{pointer}/{position}", "wrong_column", message))
    return step


def _complete(steps: list[Step], kinds: Mapping[str, ColumnKind], manifest: Manifest) -> list[Step]:
    filled = {name for step in steps if isinstance(step, Impute) for name in step.columns}
    spread = {name for step in steps if isinstance(step, OneHot) for name in step.columns}
    unfilled = [name for name in kinds if manifest.columns[name].missing and name not in filled]
    numbers = [name for name in unfilled if kinds[name] != "string"]
    strings = [name for name in unfilled if kinds[name] == "string"]
    unspread = [name for name, kind in kinds.items() if kind == "string" and name not in spread]
    first: list[Step] = []
    if numbers:
        first.append(Impute(numbers, "mean"))
    if strings:
        first.append(Impute(strings, "most_frequent"))
    last: list[Step] = [OneHot(unspread)] if unspread else []
    return [step for step in (*first, *steps, *last) if step.columns]


def _fit_column(name: str, steps: list[Step], values_N: NDArray[Any], manifest: Manifest) -> FittedColumn:
    kind = column_kind(manifest.features[name].dtype)
    stats = manifest.columns[name]
    fill: float | str | None = None
    mean, std, categories = 0.0, 1.0, None
    present_N = (
        values_N[[value is not None for value in values_N]]
        if kind == "string"
        else values_N[~np.isnan(values_N)]
    )
    for step in steps:
        if name not in step.columns:
            continue
        match step:
            case Impute(strategy="mean"):
                fill = float(present_N.mean()) if len(present_N) else 0.0
            case Impute():
                fill = _most_frequent(present_N, kind)
            case Standardize():
                # Before its Impute in the list, a missing value counts for nothing.
                counted_N = present_N if fill is None else np.where(np.isnan(values_N), fill, values_N)
                if len(counted_N):
                    mean, std = float(counted_N.mean()), float(counted_N.std()) or 1.0
            case OneHot():
                categories = [value for value, _ in stats.values or []]
    return FittedColumn(name, kind, fill, mean, std, categories)


def _most_frequent(present_N: NDArray[Any], kind: ColumnKind) -> float | str:
    """The smallest of those seen most often."""
    if not len(present_N):
        return "" if kind == "string" else 0.0
    distinct, counts = np.unique(present_N, return_counts=True)
    value = distinct[counts.argmax()]
    return str(value) if kind == "string" else float(value)


def _apply_column(column: FittedColumn, values_N: NDArray[Any]) -> NDArray[np.float64]:
    if column.kind == "string":
        values_N = np.array([column.fill if value is None else value for value in values_N], dtype=object)
    elif column.fill is not None:
        values_N = np.where(np.isnan(values_N), column.fill, values_N)
    if column.categories is None:
        return ((values_N.astype(np.float64) - column.mean) / column.std)[:, None]
    categories = np.array(column.categories, dtype=object if column.kind == "string" else np.float64)
    spread_NF: NDArray[np.float64] = (values_N[:, None] == categories[None, :]).astype(np.float64)
    return spread_NF


def _missing(column: FittedColumn) -> float | None:
    return None if column.kind == "string" else float("nan")
