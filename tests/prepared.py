"""A small table on its way through `prepare`: its manifest as ingest writes it, resolve, fit, apply."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data import prepare
from core.data.manifest import MAX_LISTED_VALUES, ColumnStats, Kind, Manifest
from core.data.prepare import FittedColumn, Resolved
from modelyard.specs import Feature, ProblemError

Cells = Mapping[str, Sequence[Any]]
Inputs = dict[str, list[str]]

_DTYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}


def manifest_of(cells: Cells, text: Sequence[str] = ()) -> Manifest:
    """All rows are in `train`. A column's dtype is that of its last value."""
    features, stats = {}, {}
    for name, column in cells.items():
        present = [value for value in column if value is not None]
        counts = {value: present.count(value) for value in sorted(set(present))} if name not in text else None
        is_listed = counts is not None and len(counts) <= MAX_LISTED_VALUES
        features[name] = Feature(_DTYPES[type(present[-1])], [])
        stats[name] = ColumnStats(
            count=len(present),
            missing=len(column) - len(present),
            values=list(counts.items()) if counts is not None and is_listed else None,
        )
    return Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": len(next(iter(cells.values())))},
        features=features,
        data_sha256="0" * 64,
        data_bytes=1,
        columns=stats,
        text_columns=list(text),
    )


def columns_of(cells: Cells, manifest: Manifest) -> dict[str, np.ndarray[Any, Any]]:
    types = {"float64": pa.float64(), "int64": pa.int64(), "string": pa.string(), "bool": pa.bool_()}
    table = pa.table(
        {name: pa.array(column, types[manifest.features[name].dtype]) for name, column in cells.items()}
    )
    return dict(prepare.columns_from_arrow(table, list(cells)))


def resolved(components: list[dict[str, Any]] | None, manifest: Manifest, inputs: Inputs) -> Resolved:
    errors: list[ProblemError] = []
    result = prepare.resolve_prepare(components, inputs, manifest, errors)
    assert errors == []
    return result


def refused(
    components: list[dict[str, Any]] | None, manifest: Manifest, inputs: Inputs
) -> list[ProblemError]:
    errors: list[ProblemError] = []
    result = prepare.resolve_prepare(components, inputs, manifest, errors)
    assert (result.components, result.inputs) == ([], [])
    return errors


def fitted(
    components: list[dict[str, Any]] | None,
    cells: Cells,
    text: Sequence[str] = (),
    inputs: Inputs | None = None,
    files: Mapping[str, Path] | None = None,
) -> list[FittedColumn]:
    manifest, inputs = manifest_of(cells, text), inputs or {"input": list(cells)}
    steps = resolved(components, manifest, inputs).components
    return prepare.fit(steps, inputs, columns_of(cells, manifest), manifest, files or {})


def applied(
    components: list[dict[str, Any]] | None,
    cells: Cells,
    text: Sequence[str] = (),
    later: Cells | None = None,
    files: Mapping[str, Path] | None = None,
) -> np.ndarray[Any, Any]:
    """All columns as one input, learned from `cells`, which `later` take the place of. The array is as the
    plan said it would be."""
    manifest, inputs = manifest_of(cells, text), {"input": list(cells)}
    (said,) = resolved(components, manifest, inputs).inputs
    fit = fitted(components, cells, text, inputs, files)
    (array,) = prepare.apply(fit, inputs, columns_of(cells if later is None else later, manifest))
    assert (list(array.shape[1:]), str(array.dtype)) == (said.shape, said.dtype)
    return array
