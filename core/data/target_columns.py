"""The target's columns as numbers: class indices, 0/1 labels, or quantities. No torch.

`read_targets` reads what needs no fitting; `fit_targets` learns the rest on the training rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from core.data.manifest import ColumnStats, Manifest
from core.data.target_transforms import Bin, Log1p, Standardize, bin_classes, binning, renamed
from core.data.targets import Targets, is_labelled, label_of
from core.errors import Invalid
from core.faults import fault, join
from modelyard.specs import ProblemError

# N rows, K target columns


class Scaling(Struct, frozen=True, omit_defaults=True):
    """What the loss sees is (z - mean) / std, where z is y, or log(1 + y) with `is_log`. One number each, or
    one for each value of a row."""

    mean: list[float]
    std: list[float]
    is_log: bool = False


@dataclass(frozen=True)
class FittedTargets:
    """`values` are [N] int64 class indices, else float32 [N] or [N, …]. `classes` are those of the targets,
    with the intervals of quantiles. `scaling` is None where the loss sees the target as it is."""

    values: NDArray[Any]
    classes: list[str] | None
    scaling: Scaling | None


def read_targets(table: pa.Table, manifest: Manifest, targets: Targets) -> NDArray[Any]:
    """[N] int64 class indices, or float64 [N], [N, K] or [N, …] (0/1 for multilabel). Raises `Invalid`."""
    if not targets.names:
        return np.zeros((table.num_rows, 0), dtype=np.float64)
    binned = binning(targets.transforms)
    if targets.task == "classification" and binned is None:
        return _read_labels(table, manifest, targets)
    columns = [_read_numbers(table, name, manifest) for name in targets.names]
    values = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    if targets.task == "multilabel":
        if not np.isin(values, (0.0, 1.0)).all():
            raise Invalid(f"the labels {targets.names} hold other values than 0 and 1: mend those rows")
        return values.reshape(len(values), -1)
    if binned is not None and binned.edges is not None:
        return _binned(values, binned.edges)
    return values


def fit_targets(read: NDArray[Any], targets: Targets, training_rows: NDArray[np.int64]) -> FittedTargets:
    """What the loss sees of what was read. Raises `Invalid` for what float32 cannot hold."""
    binned = binning(targets.transforms)
    if binned is not None and binned.quantiles is not None:
        edges = _quantile_edges(read[training_rows], binned.quantiles, targets.names[0])
        return FittedTargets(_binned(read, edges), bin_classes(binned, edges), None)
    if read.dtype == np.int64:
        return FittedTargets(read, targets.classes, None)
    scaling = _scaling(read, targets, training_rows)
    if scaling is not None:
        read = _scaled(read, scaling)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(read, dtype=np.float32)
    if not np.isfinite(values).all():
        names = ", ".join(repr(name) for name in targets.names)
        raise Invalid(
            f"the target {names} has missing values, or such as float32 cannot hold: leave those rows out"
        )
    return FittedTargets(values, targets.classes, scaling)


def check_quantiles(targets: Targets, manifest: Manifest, rows: int, errors: list[ProblemError]) -> None:
    """Whether a Bin by quantiles leaves a class empty, whichever `rows` of the training split train.

    With m rows set aside, the i-th smallest of those that are left is at least the i-th smallest of all, and
    at most the (i + m)-th. Where the manifest doesn't list the values, the worker finds out.
    """
    for place, transform in enumerate(targets.transforms):
        if not isinstance(transform, Bin) or transform.quantiles is None:
            continue
        (name,) = targets.names
        message = None
        if transform.quantiles > rows:
            message = f"{transform.quantiles} quantiles of {rows} training rows leave a class empty"
        elif _fall_together(manifest.columns.get(name), transform.quantiles, rows):
            message = (
                f"{transform.quantiles} quantiles of {name!r} fall on one value, so a class would be empty"
            )
        if message is not None:
            message += ": take fewer quantiles, or give Bin its edges."
            fault(errors, join("/target_transform", place, "quantiles"), "empty_class", message)


def _fall_together(stats: ColumnStats | None, quantiles: int, rows: int) -> bool:
    """Whether two edges, or the first and the least value, are the same for certain."""
    if stats is None or not stats.values:
        return False
    ends_V = np.cumsum([count for _, count in stats.values])  # V distinct values, rising
    if (set_aside := int(ends_V[-1]) - rows) < 0:
        return False
    # Linear between the ranks around (rows - 1) k / quantiles, as numpy does it; in integers, so exact.
    steps_K = (rows - 1) * np.arange(1, quantiles, dtype=np.int64)
    least_K = np.searchsorted(ends_V, steps_K // quantiles, side="right")
    greatest_K = np.searchsorted(ends_V, -(-steps_K // quantiles) + set_aside, side="right")
    return bool((greatest_K[1:] <= least_K[:-1]).any() or greatest_K[0] == 0)


def _read_labels(table: pa.Table, manifest: Manifest, targets: Targets) -> NDArray[np.int64]:
    (name,) = targets.names
    index_of = {label: index for index, label in enumerate(targets.classes or [])}
    column = table.column(name)
    if is_labelled(name, manifest):
        stored = np.array(column.to_numpy(zero_copy_only=False), dtype=np.int64)
        classes = [renamed(label, targets.transforms) for label in manifest.classes or []]
        found = np.array([index_of[label] for label in classes], dtype=np.int64)
        return found[stored]
    encoded = column.combine_chunks().dictionary_encode()
    if encoded.null_count:
        row = np.flatnonzero(encoded.indices.is_null().to_numpy(zero_copy_only=False))[0]
        raise Invalid(f"the target {name!r} is missing in row {row}: leave it out")
    labels = [renamed(label_of(value), targets.transforms) for value in encoded.dictionary.to_pylist()]
    unknown = sorted({label for label in labels if label not in index_of})
    if unknown:
        raise Invalid(f"the target {name!r} has values that the training split lacks: {unknown[:10]}")
    indices = np.array([index_of[label] for label in labels], dtype=np.int64)
    rows: NDArray[np.int64] = indices[encoded.indices.to_numpy(zero_copy_only=False)]
    return rows


def _read_numbers(table: pa.Table, name: str, manifest: Manifest) -> NDArray[np.float64]:
    """[N], or [N, …] of a column of lists; NaN where a value is missing."""
    column = table.column(name).combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    numbers = column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    return np.array(numbers, dtype=np.float64).reshape(table.num_rows, *manifest.features[name].shape)


def _binned(values: NDArray[np.float64], edges: list[float]) -> NDArray[np.int64]:
    if np.isnan(values).any():
        raise Invalid("a target to be binned is missing in some rows: leave those rows out")
    # side="right": an edge belongs to the class above it.
    return np.searchsorted(edges, values.reshape(len(values)), side="right").astype(np.int64)


def _quantile_edges(values: NDArray[np.float64], quantiles: int, name: str) -> list[float]:
    edges: list[float] = np.quantile(values, np.arange(1, quantiles) / quantiles).tolist()
    if len(set(edges)) < len(edges) or edges[0] <= values.min():
        raise Invalid(
            f"{quantiles} quantiles of {name!r} fall on one value ({edges}), so a class would be empty: "
            "take fewer quantiles, or give Bin its edges"
        )
    return edges


def _scaling(
    values: NDArray[np.float64], targets: Targets, training_rows: NDArray[np.int64]
) -> Scaling | None:
    kinds = {type(transform) for transform in targets.transforms}
    is_log, is_standardized = Log1p in kinds, Standardize in kinds
    if not is_log and not is_standardized:
        return None
    if is_log and not (values >= 0).all():
        raise Invalid(
            f"Log1p takes quantities >= 0, and {targets.names} holds others: mend them, or take it out"
        )
    if not is_standardized:
        return Scaling([0.0], [1.0], is_log)
    training = np.log1p(values[training_rows]) if is_log else values[training_rows]
    flat = training.reshape(len(training), -1)
    std = flat.std(axis=0)
    return Scaling(flat.mean(axis=0).tolist(), np.where(std > 0, std, 1.0).tolist(), is_log)


def _scaled(values: NDArray[np.float64], scaling: Scaling) -> NDArray[np.float64]:
    logged = np.log1p(values) if scaling.is_log else values
    flat = (logged.reshape(len(values), -1) - np.array(scaling.mean)) / np.array(scaling.std)
    scaled: NDArray[np.float64] = flat.reshape(values.shape)
    return scaled
