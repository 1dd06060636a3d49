"""`data.json`: which rows train, validate and test, and the numbers that `prepare` learned on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct

from core.data import prepare
from core.data.arrow import open_table
from core.data.manifest import Kind, Manifest
from core.data.prepare import FittedColumn
from core.data.splits import rows_to_test, set_aside, validation_split
from core.data.target_columns import Scaling, fit_targets, read_targets
from core.data.targets import Targets
from core.nets.components.samplers import SUBSET
from modelyard.specs import JobSpec

Content = dict[str, Any]


class Reading(Struct, frozen=True):
    """What a job made of a dataset before it began."""

    train: list[int]
    validation: list[int]
    test: range
    prepared: list[FittedColumn]
    classes: list[str] | None
    scaling: Scaling | None


def read(arrow: Path, manifest: Manifest, spec: JobSpec, targets: Targets) -> Reading:
    """As the worker reads it. Raises core.errors.Invalid."""
    table = open_table(arrow)
    read_N = read_targets(table, manifest, targets)
    rows = manifest.rows_of("train")
    labels_N = read_N[rows.start : rows.stop] if read_N.dtype == np.int64 else None
    train_N, validation_N = set_aside(manifest, spec.split, labels_N, _groups(table, manifest, spec))
    fitted = fit_targets(read_N, targets, train_N)
    prepared: list[FittedColumn] = []
    if manifest.kind is Kind.TABLE:
        columns = prepare.columns_from_arrow(table, targets.columns)
        training = {name: values[train_N] for name, values in columns.items()}
        prepared = prepare.fit(spec.prepare or [], targets.inputs, training, manifest, {})
    sampler = spec.trainer.sampler
    if sampler is not None and sampler["type"] == SUBSET:
        train_N = train_N[sampler["indices"]]
    return Reading(
        train_N.tolist(),
        validation_N.tolist(),
        rows_to_test(manifest, spec.split),
        prepared,
        fitted.classes,
        fitted.scaling,
    )


def content(reading: Reading, manifest: Manifest, targets: Targets, source: Mapping[str, Any]) -> Content:
    """`source` says which dataset it is, and where its bytes are."""
    return {
        **source,
        "kind": str(manifest.kind),
        "num_samples": manifest.num_samples,
        "input": targets.columns[0],
        "target": targets.names,
        "classes": reading.classes,
        "rows": {
            "train": _rule(reading.train, reading.validation),
            "validation": _span(reading.validation) or reading.validation,
            "test": {"from": reading.test.start, "to": reading.test.stop},
        },
        **({"columns": _columns(reading.prepared)} if reading.prepared else {}),
        **({"scaling": msgspec.to_builtins(reading.scaling)} if reading.scaling else {}),
    }


def _groups(table: pa.Table, manifest: Manifest, spec: JobSpec) -> list[Any] | None:
    """Of the rows of `train`; None where rows stand for themselves."""
    if spec.split.group is None or validation_split(manifest, spec.split) is not None:
        return None
    train = manifest.rows_of("train")
    groups: list[Any] = table.column(spec.split.group).slice(train.start, len(train)).to_pylist()
    return groups


def _rule(train: list[int], validation: list[int]) -> Content | list[int]:
    """A stretch, of which the rows that validate are left out, where that says it all."""
    if (span := _span(train)) is not None:
        return span
    whole = _span(sorted([*train, *validation]))
    return whole if whole is not None and train == sorted(train) else train


def _span(rows: list[int]) -> Content | None:
    """None where rows between are missing."""
    if not rows or rows != list(range(rows[0], rows[-1] + 1)):
        return None
    return {"from": rows[0], "to": rows[-1] + 1}


def _columns(prepared: list[FittedColumn]) -> list[Content]:
    return [
        {"name": column.name, "kind": column.kind, "steps": msgspec.to_builtins(column.operations)}
        for column in prepared
    ]
