"""Dataset + spec -> rows that `batches.py` takes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data import prepare
from core.data.arrow import array_column, open_table
from core.data.manifest import Kind, Manifest
from core.data.packed import Progress, silent
from core.data.prepare import FittedColumn
from core.data.splits import rows_to_test, set_aside, validation_split
from core.data.target_columns import Scaling, fit_targets, read_targets
from core.data.targets import Targets
from core.errors import Invalid
from core.nets.components.samplers import WEIGHTED
from core.nets.sampling import balanced_weights, weights_column
from core.nets.transforms import Pipeline
from modelyard.specs import Split
from workers.data_workers import DataWorkers
from workers.inputs import Inputs, Reading

# N rows of the dataset

CPU = torch.device("cpu")

#: Rows that take less of the device's free memory are kept there.
NEAR_SHARE = 0.25


@dataclass(frozen=True)
class Rows:
    """All rows of a dataset.

    `train_inputs` and `eval_inputs` hold [N, …] for each input of the net: uint8 images after the prefix of
    the train and the eval transforms (memory-mapped, one and the same where the prefixes are), float32, or
    int64 tokens. Only the train images may differ in size. `targets` is [N] int64 class indices or float32
    values. `train`, `validation`, `test` are row numbers; `weights` [training rows] are those of a weighted
    sampler. `makers` transform the train images where that is too much for one process. `classes` are the
    targets' and `scaling` is what was done to a quantity.
    """

    train_inputs: tuple[Inputs, ...]
    eval_inputs: tuple[Tensor, ...]
    targets: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    prepared: list[FittedColumn]
    weights: Tensor | None = None
    classes: list[str] | None = None
    scaling: Scaling | None = None
    makers: DataWorkers | None = None


@dataclass(frozen=True)
class Source:
    """A dataset on disk and how a spec reads it. `components` is `prepare` with its columns written out;
    `files` are the uploads that the spec names, by id; `sampler` is the trainer's. `progress` is told how far
    the packing of images is, and may raise to stop it. Rows go to the `device` where they are few;
    `data_workers` take over transforms that are too much for one process."""

    arrow: Path
    manifest: Manifest
    targets: Targets
    split: Split
    components: list[dict[str, Any]]
    train: Pipeline | None
    eval: Pipeline | None
    cache: Path
    threads: int
    files: Mapping[str, Path] = field(default_factory=dict)
    sampler: dict[str, Any] | None = None
    progress: Progress = silent
    device: torch.device = CPU
    data_workers: DataWorkers | None = None

    @property
    def train_reading(self) -> Reading:
        return self._reading(self.train, may_differ=not self.is_shared)

    @property
    def eval_reading(self) -> Reading:
        return self._reading(self.eval, may_differ=False)

    @property
    def is_shared(self) -> bool:
        """Whether both pipelines begin with the same prefix, and so with the same pixels."""
        return _prefix_key(self.train) == _prefix_key(self.eval)

    def _reading(self, pipeline: Pipeline | None, *, may_differ: bool) -> Reading:
        steps = (*pipeline.prefix, *pipeline.rest) if pipeline is not None else ()
        return Reading(
            self.arrow,
            self.manifest,
            self.targets.columns[0],
            [step.component for step in steps],
            self.cache,
            self.threads,
            may_differ,
        )


def open_rows(source: Source) -> Rows:
    table, manifest, targets = open_table(source.arrow), source.manifest, source.targets
    read_N = read_targets(table, manifest, targets)
    train = manifest.rows_of("train")
    labels_N = read_N[train.start : train.stop] if read_N.dtype == np.int64 else None
    train_index, validation_index = set_aside(manifest, source.split, labels_N, _read_groups(table, source))
    test = rows_to_test(manifest, source.split)
    fitted = fit_targets(read_N, targets, train_index)
    prepared: list[FittedColumn] = []
    train_inputs: tuple[Inputs, ...]
    if manifest.kind is Kind.TABLE:
        columns = prepare.columns_from_arrow(table, targets.columns)
        training = {name: values[train_index] for name, values in columns.items()}
        prepared = prepare.fit(source.components, targets.inputs, training, manifest, source.files)
        arrays = prepare.apply(prepared, targets.inputs, columns)
        _require_finite(arrays, targets.inputs, columns)
        train_inputs = eval_inputs = tuple(torch.from_numpy(array) for array in arrays)
    else:
        train_inputs, eval_inputs = _read_inputs(source)
    placed_train, placed_eval = _placed(source, train_inputs, eval_inputs)
    return Rows(
        placed_train,
        placed_eval,
        torch.from_numpy(fitted.values),
        torch.from_numpy(train_index),
        torch.from_numpy(validation_index),
        torch.arange(test.start, test.stop),
        prepared,
        _read_weights(table, source, fitted.values, train_index),
        fitted.classes,
        fitted.scaling,
        _makers(source, train_inputs),
    )


def raw_instance(arrow: Path, manifest: Manifest, inputs: list[str], row: int) -> Any:
    """One row as a user would send it: an image's bytes, a row object, or nested lists."""
    table = open_table(arrow).slice(row, 1)
    match manifest.kind:
        case Kind.IMAGES:
            return table.column("image")[0].as_py()
        case Kind.TABLE:
            return {name: table.column(name)[0].as_py() for name in inputs}
        case Kind.ARRAYS:
            return array_column(table, inputs[0], manifest)[0].tolist()


def _read_inputs(source: Source) -> tuple[tuple[Inputs, ...], tuple[Tensor, ...]]:
    """Of `train` and of `eval`, one and the same where the pixels are. The images of eval have one size: the
    plan sees to it."""
    rows = source.eval_reading.open(source.progress)
    assert isinstance(rows, Tensor)
    evaluated = (rows,)
    return evaluated if source.is_shared else (source.train_reading.open(source.progress),), evaluated


def _placed(
    source: Source, train_inputs: tuple[Inputs, ...], eval_inputs: tuple[Tensor, ...]
) -> tuple[tuple[Inputs, ...], tuple[Tensor, ...]]:
    """On the device once and for all, where they take little of it. What the CPU transforms stays there."""
    placed_eval = tuple(_near(rows, source.device) for rows in eval_inputs)
    if source.train is not None and source.train.needs_generator:
        return train_inputs, placed_eval
    if train_inputs is eval_inputs:
        return placed_eval, placed_eval
    placed = (_near(rows, source.device) if isinstance(rows, Tensor) else rows for rows in train_inputs)
    return tuple(placed), placed_eval


def _near(rows: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu" or rows.nbytes > NEAR_SHARE * torch.cuda.mem_get_info(device)[0]:
        return rows
    return rows.to(device)


def _makers(source: Source, train_inputs: tuple[Inputs, ...]) -> DataWorkers | None:
    """The data workers, told what to read, where one process would be slow; else they end."""
    workers, pipeline = source.data_workers, source.train
    if workers is None or not len(workers):
        return None
    is_ragged = not all(isinstance(rows, Tensor) for rows in train_inputs)
    if is_ragged or (pipeline is not None and pipeline.needs_generator):
        workers.open(source.train_reading)
        return workers
    workers.close()
    return None


def _read_groups(table: pa.Table, source: Source) -> list[Any] | None:
    """The group of each row of `train`; None where rows stand for themselves."""
    manifest, split = source.manifest, source.split
    if split.group is None or validation_split(manifest, split) is not None:
        return None
    train = manifest.rows_of("train")
    groups: list[Any] = table.column(split.group).slice(train.start, len(train)).to_pylist()
    return groups


def _read_weights(
    table: pa.Table, source: Source, targets_N: NDArray[Any], training_rows: NDArray[np.int64]
) -> Tensor | None:
    """float64, one for each training row; None where the sampler takes none."""
    if source.sampler is None or source.sampler["type"] != WEIGHTED:
        return None
    column = weights_column(source.sampler)
    if column is None:
        return balanced_weights(torch.from_numpy(targets_N[training_rows]))
    weights_N = table.column(column).cast("float64").to_numpy(zero_copy_only=False)
    return torch.from_numpy(weights_N[training_rows])


def _require_finite(
    arrays: tuple[NDArray[Any], ...], inputs: dict[str, list[str]], columns: prepare.Columns
) -> None:
    """`prepare` was completed for what the training split lacks; another split may lack more."""
    for array, names in zip(arrays, inputs.values(), strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raw = {name: columns[name] for name in names if columns[name].dtype.kind == "f"}
            lacking = [name for name, values in raw.items() if not np.isfinite(values).all()] or names
            raise Invalid(
                f"the input {lacking[0]!r} is missing in a row of val or test, and in none of train, or has "
                'a value that float32 cannot hold: leave those rows out, or add {"type": "Impute"} to prepare'
            )


def _prefix_key(pipeline: Pipeline | None) -> str:
    return pipeline.prefix_key() if pipeline is not None else ""
