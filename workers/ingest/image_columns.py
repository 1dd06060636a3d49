"""What stands beside the images of a dataset: labels, as classes or quantities, and further typed columns."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from core.data.manifest import ColumnStats
from core.errors import Invalid
from workers.ingest.columns import TYPES, Summary, convert, narrow
from workers.ingest.labels import classes_of, counts_of
from workers.ingest.problems import Problems


class Row(NamedTuple):
    """One image as the upload names it. `pointer` says where it stands, for errors; `others` are the cells
    of the further columns, None where they are empty."""

    file: str
    label: str
    pointer: str
    others: tuple[str | None, ...] = ()


class Columns(NamedTuple):
    """`batches` has, by split, a row an image: `label`, then the further columns. `classes` is None where
    labels are quantities. `stats` are by split and column; a class label has none."""

    batches: dict[str, pa.RecordBatch]
    classes: list[str] | None
    class_counts: dict[str, list[int]]
    stats: dict[str, dict[str, ColumnStats]]


def columns_of(
    rows: Mapping[str, Sequence[Row]], others: Sequence[str], label: Literal["float", "class"] | None
) -> Columns:
    """`others` names the further columns; `label` says what labels are: None, quantities where one has a
    fraction. Types are agreed over all splits. Raises `Invalid`."""
    classes = None
    if (label or _guess(rows)) == "float":
        labels = _quantities(rows)
    else:
        classes = classes_of({split: [row.label for row in found] for split, found in rows.items()})
        labels = _indices(rows, classes)
    arrays = {split: {"label": label} for split, label in labels.items()}
    for position, name in enumerate(others):
        for split, cells in _typed(rows, position, name).items():
            arrays[split][name] = cells
    return Columns(
        {split: pa.RecordBatch.from_pydict(found) for split, found in arrays.items()},
        classes,
        {}
        if classes is None
        else {s: counts_of(found.to_pylist(), len(classes)) for s, found in labels.items()},
        {
            split: {
                name: _stats(array) for name, array in found.items() if name != "label" or classes is None
            }
            for split, found in arrays.items()
        },
    )


def _guess(rows: Mapping[str, Sequence[Row]]) -> Literal["float", "class"]:
    labels = pa.array([row.label for found in rows.values() for row in found], pa.string())
    if narrow(None, labels) != "float64":
        return "class"
    numbers = pc.cast(labels, TYPES["float64"])
    numbers = numbers.filter(pc.is_finite(numbers))
    has_fraction = pc.any(pc.not_equal(numbers, pc.floor(numbers))).as_py()
    return "float" if has_fraction else "class"


def _quantities(rows: Mapping[str, Sequence[Row]]) -> dict[str, pa.Array]:
    if not rows.get("train"):
        raise Invalid(
            f"expected a training split with at least one row, got only {', '.join(rows) or 'none'}; "
            "name a file `train`",
            code="no_train_split",
        )
    problems = Problems()
    found = {}
    for split, split_rows in rows.items():
        numbers = []
        for row in split_rows:
            number = _number(row.label)
            if number is None:
                message = f"expected a finite number as the label, got {row.label[:100]!r}; correct it"
                problems.add(row.pointer, "bad_label", message)
            numbers.append(number)
        found[split] = pa.array(numbers, pa.float64())
    problems.raise_any()
    return found


def _number(label: str) -> float | None:
    """As Arrow reads one: Python would also take 1_000."""
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in label else None


def _indices(rows: Mapping[str, Sequence[Row]], classes: Sequence[str]) -> dict[str, pa.Array]:
    index = {name: position for position, name in enumerate(classes)}
    return {split: pa.array([index[row.label] for row in found], pa.int64()) for split, found in rows.items()}


def _typed(rows: Mapping[str, Sequence[Row]], position: int, name: str) -> dict[str, pa.Array]:
    """One further column by split, in the narrowest type that holds all of it."""
    cells = {
        split: pa.array([row.others[position] for row in found], pa.string()) for split, found in rows.items()
    }
    dtype = None
    for array in cells.values():
        dtype = narrow(dtype, array)
    problems = Problems()
    typed = {}
    for split, array in cells.items():
        typed[split] = convert(array, dtype or "string")
        if dtype == "float64":
            for at in pc.indices_nonzero(pc.fill_null(pc.is_inf(typed[split]), False)).to_pylist():
                message = f"expected a finite number in column {name!r}, got infinity; leave the cell empty"
                problems.add(rows[split][at].pointer, "non_finite", message)
    problems.raise_any()
    return typed


def _stats(array: pa.Array) -> ColumnStats:
    summary = Summary()
    summary.add(array)
    return summary.result()
