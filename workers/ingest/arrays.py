"""Arrays: x and y, optional x_val, y_val, x_test, y_test; written alike whatever file they come from.

An .npz is a zip of .npy files, so it comes here as a tree of them, with an archive's checks behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.data.manifest import MAX_LISTED_VALUES, SPLIT_ORDER, Kind, Manifest
from core.errors import Invalid
from modelyard.specs import Feature
from workers.ingest.archives import Tree
from workers.ingest.columns import Summary
from workers.ingest.labels import classes_of, counts_of
from workers.ingest.names import ARRAY_SUFFIXES, suffix_of
from workers.ingest.npy import NpyFile
from workers.ingest.options import ClassOptions
from workers.ingest.problems import Problems, row_pointer
from workers.ingest.writer import BATCH_BYTES, ArrowWriter

#: What an array may hold, and as what it is stored: torch has no arithmetic on the wider unsigned integers.
STORED_DTYPES: Mapping[str, str] = {
    "bool": "bool",
    "uint8": "uint8",
    "int8": "int8",
    "int16": "int16",
    "uint16": "int32",
    "int32": "int32",
    "uint32": "int64",
    "int64": "int64",
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
}

_SPLITS = {"": "train", "_train": "train", "_val": "val", "_test": "test"}


class ArrayFile(Protocol):
    """One array of a file: `shape` is the whole array's, rows first."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_rows(self) -> int: ...

    @property
    def row_shape(self) -> tuple[int, ...]: ...

    def blocks(self, block_bytes: int) -> Iterator[NDArray[Any]]:
        """The rows in order, as many at a time as fit into `block_bytes`, at least one."""
        ...

    def whole(self) -> NDArray[Any]: ...


class Pair(NamedTuple):
    x: ArrayFile
    y: ArrayFile


class _Target(NamedTuple):
    """`rows` by split as stored: indices into `classes` where there are classes."""

    rows: dict[str, NDArray[Any]]
    classes: list[str] | None


def ingest(tree: Tree, out: Path, options: ClassOptions) -> Manifest:
    pairs = _pairs(tree)
    if options.classes is not None:
        for pair in pairs.values():
            check_labels(pair.y)
    return write_arrays(pairs, out, "arrays", options.classes)


def check_labels(y: ArrayFile) -> None:
    """Raises `Invalid` where the rows are not one whole number each, as named classes need."""
    if y.row_shape not in ((), (1,)) or y.dtype.kind not in "iu":
        raise Invalid(
            f"{y.name}: expected one whole number a row, got {y.dtype.name} of {list(y.row_shape)}",
            code="bad_labels",
        )


def write_arrays(
    pairs: Mapping[str, Pair], out: Path, format: str, class_names: Sequence[str] | None = None
) -> Manifest:
    """x is read in blocks; y is held in memory, since the classes are needed before the first row.

    `class_names` are those of the labels 0, 1, 2, …; without them a label is its own name.
    """
    first = pairs["train"]
    for pair in pairs.values():
        _check_pair(pair, first)
    x_dtype = _stored_dtype(first.x)
    target = _target(pairs) if class_names is None else _named_target(pairs, class_names)
    y_train = target.rows["train"]
    schema = pa.schema(
        [
            ("x", _arrow_type(x_dtype, first.x.row_shape)),
            ("y", _arrow_type(y_train.dtype.name, y_train.shape[1:])),
        ]
    )
    summaries = {"x": Summary(lists_values=False), "y": Summary()}
    problems = Problems()
    with ArrowWriter(out, schema) as writer:
        for split, pair in pairs.items():
            _write_split(
                pair, x_dtype, target.rows[split], writer, summaries if split == "train" else {}, problems
            )
        problems.raise_any()
    classes = target.classes
    return Manifest(
        format=format,
        kind=Kind.ARRAYS,
        splits={split: pair.x.num_rows for split, pair in pairs.items()},
        features={
            "x": Feature(x_dtype, list(first.x.row_shape)),
            "y": Feature(y_train.dtype.name, list(y_train.shape[1:])),
        },
        data_sha256=writer.sha256,
        data_bytes=writer.size_bytes,
        classes=classes,
        class_counts={}
        if classes is None
        else {split: counts_of(rows.tolist(), len(classes)) for split, rows in target.rows.items()},
        columns={name: summary.result() for name, summary in summaries.items()},
    )


def _pairs(tree: Tree) -> dict[str, Pair]:
    """In the order train, val, test; raises `Invalid` where an array lacks its partner or is unknown."""
    by_stem = {
        PurePosixPath(name).stem.lower(): name for name in tree.sizes if suffix_of(name) in ARRAY_SUFFIXES
    }
    found: dict[str, Pair] = {}
    for ending, split in _SPLITS.items():
        names = [by_stem.pop(axis + ending, None) for axis in ("x", "y")]
        if names == [None, None]:
            continue
        if names[0] is None or names[1] is None or split in found:
            raise _wrong_arrays(tree)
        found[split] = Pair(NpyFile(tree, names[0]), NpyFile(tree, names[1]))
    if by_stem or "train" not in found:
        raise _wrong_arrays(tree)
    return {split: found[split] for split in SPLIT_ORDER if split in found}


def _check_pair(pair: Pair, train: Pair) -> None:
    if pair.x.num_rows != pair.y.num_rows:
        raise Invalid(
            f"expected as many rows in {pair.x.name} as in {pair.y.name}, got {pair.x.num_rows} and "
            f"{pair.y.num_rows}",
            code="length_mismatch",
        )
    for array, model in zip(pair, train, strict=True):
        if array.row_shape != model.row_shape or array.dtype.kind != model.dtype.kind:
            raise Invalid(
                f"expected rows of {model.dtype} {list(model.row_shape)} in {array.name} as in {model.name}, "
                f"got {array.dtype} {list(array.row_shape)}",
                code="shape_mismatch",
            )


def _wrong_arrays(tree: Tree) -> Invalid:
    names = ", ".join(sorted(tree.sizes)[:20])
    return Invalid(
        "expected an .npz of x and y (or x_train, y_train), optional x_val, y_val and x_test, y_test; "
        f"got {names or 'nothing'}; rename or remove what is not one of these",
        code="wrong_arrays",
    )


def _stored_dtype(array: ArrayFile) -> str:
    stored = STORED_DTYPES.get(array.dtype.newbyteorder("=").name)
    if stored is None:
        raise Invalid(
            f"{array.name}: expected one of {', '.join(STORED_DTYPES)}, got {array.dtype}; convert it",
            code="unsupported_dtype",
        )
    return stored


def _target(pairs: Mapping[str, Pair]) -> _Target:
    """Strings, bools and single integers are labels; integers of over `MAX_LISTED_VALUES` distinct values and
    those of several numbers a row are quantities, stored as floats."""
    sample = pairs["train"].y
    is_single = sample.row_shape in ((), (1,))
    if sample.dtype.kind not in "biuf" and not (sample.dtype.kind == "U" and is_single):
        _stored_dtype(sample)
        raise Invalid(
            f"{sample.name}: expected one string a row, got rows of {list(sample.row_shape)}",
            code="bad_array",
        )
    rows = {split: pair.y.whole() for split, pair in pairs.items()}
    if sample.dtype.kind == "f":
        return _Target(
            {split: y.astype(_stored_dtype(sample), copy=False) for split, y in rows.items()}, None
        )
    if not is_single:
        return _Target({split: y.astype("float32") for split, y in rows.items()}, None)
    rows = {split: y.reshape(-1) for split, y in rows.items()}
    if sample.dtype.kind in "iu" and len(np.unique(rows["train"])) > MAX_LISTED_VALUES:
        return _Target({split: y.astype("float64") for split, y in rows.items()}, None)
    return _labelled(rows)


def _named_target(pairs: Mapping[str, Pair], names: Sequence[str]) -> _Target:
    if len(set(names)) != len(names) or not all(names):
        raise Invalid(f"expected different names in classes, got {list(names)[:50]}", code="bad_options")
    rows = {split: pair.y.whole().reshape(-1).astype("int64") for split, pair in pairs.items()}
    for split, y in rows.items():
        if y.min() < 0 or y.max() >= len(names):
            raise Invalid(
                f"expected labels from 0 to {len(names) - 1}, as {len(names)} classes are named; "
                f"{pairs[split].y.name} has {y.min()} to {y.max()}; name a class for every number",
                code="unseen_label",
            )
    return _Target(rows, list(names))


def _labelled(rows: Mapping[str, NDArray[Any]]) -> _Target:
    distinct = {split: np.unique(y, return_inverse=True) for split, y in rows.items()}
    labels = {split: [_label(value) for value in values.tolist()] for split, (values, _) in distinct.items()}
    classes = classes_of(labels)
    index = {label: position for position, label in enumerate(classes)}
    return _Target(
        {
            split: np.array([index[label] for label in labels[split]], np.int64)[inverse]
            for split, (_, inverse) in distinct.items()
        },
        classes,
    )


def _label(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _arrow_type(dtype: str, row_shape: tuple[int, ...]) -> pa.DataType:
    element = pa.from_numpy_dtype(np.dtype(dtype))
    return pa.list_(element, int(np.prod(row_shape))) if row_shape else element


def _write_split(
    pair: Pair,
    x_dtype: str,
    y: NDArray[Any],
    writer: ArrowWriter,
    summaries: Mapping[str, Summary],
    problems: Problems,
) -> None:
    start = 0
    for block in pair.x.blocks(BATCH_BYTES):
        parts = {"x": block.astype(x_dtype, copy=False), "y": y[start : start + len(block)]}
        columns = []
        for source, (name, rows) in zip(pair, parts.items(), strict=True):
            _check_finite(rows, source.name, start, problems)
            elements = pa.array(rows.reshape(-1))
            columns.append(
                pa.FixedSizeListArray.from_arrays(elements, rows[0].size) if rows.ndim > 1 else elements
            )
            if name in summaries and not problems.errors:
                summaries[name].add(elements)
        writer.write(pa.record_batch(columns, schema=writer.schema))
        start += len(block)


def _check_finite(rows: NDArray[Any], name: str, first_row: int, problems: Problems) -> None:
    if rows.dtype.kind != "f" or np.isfinite(rows).all():
        return
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    for position in np.flatnonzero(bad).tolist():
        message = "expected finite numbers, the row has NaN or infinity; fill it or leave the row out"
        problems.add(row_pointer(name, first_row + position + 1), "non_finite", message)
