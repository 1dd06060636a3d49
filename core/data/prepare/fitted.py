"""The fitted columns of a version: for each input column its operations, in order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.data.manifest import Manifest
from core.data.prepare.forms import advance, form_of
from core.data.prepare.learn import learn
from core.data.prepare.operations import (
    Dated,
    Imputed,
    ImputedText,
    Operation,
    Padded,
    Tokenized,
    Truncated,
    replay,
)
from core.data.prepare.steps import Step
from core.data.prepare.tokenizer_file import padding_index
from core.data.targets import ColumnKind, column_kind

# N rows, F features, T tokens

#: number and bool columns are float64 [N] with NaN where missing, string columns objects with None.
Columns = Mapping[str, NDArray[Any]]


class FittedColumn(msgspec.Struct, frozen=True):
    """`kind` is what the dataset holds and a client sends, not what the operations make of it."""

    name: str
    kind: ColumnKind
    operations: list[Operation]

    @property
    def may_be_missing(self) -> bool:
        return any(isinstance(operation, Imputed | ImputedText) for operation in self.operations)

    @property
    def is_date(self) -> bool:
        return any(isinstance(operation, Dated) for operation in self.operations)


def fit(
    components: list[dict[str, Any]],
    inputs: Mapping[str, Sequence[str]],
    columns: Columns,
    manifest: Manifest,
    files: Mapping[str, Path] = MappingProxyType({}),
) -> list[FittedColumn]:
    """Learns from `columns`, which hold the training rows alone; `components` are resolved, `files` the
    uploads they name. Dates that cannot be read count as missing here: `apply` sees all rows and names the
    first one. Raises core.errors.Invalid for a file or a column that cannot be used."""
    names = dict.fromkeys(name for group in inputs.values() for name in group)
    steps_of: dict[str, list[Step]] = {name: [] for name in names}
    for step in msgspec.convert(components, list[Step]):
        for name in step.columns:
            steps_of[name].append(step)
    return [_fit_column(name, steps, columns[name], manifest, files) for name, steps in steps_of.items()]


def apply(
    fitted: Sequence[FittedColumn], inputs: Mapping[str, Sequence[str]], columns: Columns
) -> tuple[NDArray[Any], ...]:
    """One array for each input of the net: float32 [N, F], features in the order of its columns, or int64
    [N, T] for text. Raises core.errors.Invalid for a date or a text that cannot be read, with its row."""
    parts = {column.name: _replay_all(column, columns[column.name]) for column in fitted}
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: callers look for that
        return tuple(_joined([parts[name] for name in group]) for group in inputs.values())


def _fit_column(
    name: str, steps: list[Step], values_N: NDArray[Any], manifest: Manifest, files: Mapping[str, Path]
) -> FittedColumn:
    form = form_of(name, manifest)
    values: Any = _as_features(values_N)
    operations: list[Operation] = []
    for step in steps:
        operation = learn(step, form, values, files)
        form = advance(form, step, name, manifest)
        if form.kind in ("number", "bool", "string"):  # nothing is learned from features and tokens
            values = replay(operation, values, is_strict=False)
        _append(operations, operation)
    return FittedColumn(name, column_kind(manifest.features[name].dtype), operations)


def _append(operations: list[Operation], operation: Operation) -> None:
    last = operations[-1] if operations else None
    if isinstance(operation, Truncated) and isinstance(last, Tokenized) and last.length is None:
        # The library cuts a text before it puts the special tokens around it.
        operations[-1] = Tokenized(last.content, operation.length, operation.side)
        return
    if isinstance(operation, Padded):
        content = next((made.content for made in operations if isinstance(made, Tokenized)), None)
        if content is not None:
            operation = Padded(operation.length, operation.side, padding_index(content))
    operations.append(operation)


def _replay_all(column: FittedColumn, values_N: NDArray[Any]) -> NDArray[Any]:
    values: Any = _as_features(values_N)
    for operation in column.operations:
        values = replay(operation, values)
    array: NDArray[Any] = values
    return array


def _as_features(values_N: NDArray[Any]) -> NDArray[Any]:
    return values_N if values_N.dtype == object else values_N[:, None]


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if parts[0].dtype == np.int64:
        return parts[0]  # text stands alone in its input
    return np.concatenate(parts, axis=1, dtype=np.float32)
