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
from core.data.arrow import open_table
from core.data.images import Mode
from core.data.manifest import Kind, Manifest
from core.data.packed import packed_images
from core.data.prepare import FittedColumn
from core.data.splits import rows_to_test, set_aside, validation_split
from core.data.target_columns import Scaling, fit_targets, read_targets
from core.data.targets import Targets
from core.errors import Invalid
from core.nets.components.samplers import WEIGHTED
from core.nets.sampling import balanced_weights, weights_column
from core.nets.transforms import Pipeline
from core.predict import array_row
from modelyard.specs import Split
from workers.batches import Batch as Batch
from workers.batches import Batches as Batches

# N rows of the dataset


@dataclass(frozen=True)
class Rows:
    """All rows of a dataset.

    `train_inputs` and `eval_inputs` hold [N, …] for each input of the net: uint8 images after the prefix of
    the train and the eval transforms (memory-mapped, one and the same where the prefixes are), float32, or
    int64 tokens. `targets` is [N] int64 class indices or float32 values. `train`, `validation`, `test` are
    row numbers; `weights` [training rows] are those of a weighted sampler. `classes` are the targets' and
    `scaling` is what was done to a quantity.
    """

    train_inputs: tuple[Tensor, ...]
    eval_inputs: tuple[Tensor, ...]
    targets: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    prepared: list[FittedColumn]
    weights: Tensor | None = None
    classes: list[str] | None = None
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Source:
    """A dataset on disk and how a spec reads it. `components` is `prepare` with its columns written out;
    `files` are the uploads that the spec names, by id; `sampler` is the trainer's."""

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


def open_rows(source: Source) -> Rows:
    table, manifest, targets = open_table(source.arrow), source.manifest, source.targets
    read_N = read_targets(table, manifest, targets)
    train = manifest.rows_of("train")
    labels_N = read_N[train.start : train.stop] if read_N.dtype == np.int64 else None
    train_index, validation_index = set_aside(manifest, source.split, labels_N, _read_groups(table, source))
    test = rows_to_test(manifest, source.split)
    fitted = fit_targets(read_N, targets, train_index)
    prepared: list[FittedColumn] = []
    if manifest.kind is Kind.TABLE:
        columns = prepare.columns_from_arrow(table, targets.columns)
        training = {name: values[train_index] for name, values in columns.items()}
        prepared = prepare.fit(source.components, targets.inputs, training, manifest, source.files)
        arrays = prepare.apply(prepared, targets.inputs, columns)
        _require_finite(arrays, targets.inputs, columns)
        train_inputs = eval_inputs = tuple(torch.from_numpy(array) for array in arrays)
    else:
        eval_inputs = (_read_inputs(table, source, source.eval),)
        shared = _prefix_key(source.train) == _prefix_key(source.eval)
        train_inputs = eval_inputs if shared else (_read_inputs(table, source, source.train),)
    return Rows(
        train_inputs,
        eval_inputs,
        torch.from_numpy(fitted.values),
        torch.from_numpy(train_index),
        torch.from_numpy(validation_index),
        torch.arange(test.start, test.stop),
        prepared,
        _read_weights(table, source, fitted.values, train_index),
        fitted.classes,
        fitted.scaling,
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
            return _array_column(table, inputs[0], manifest)[0].tolist()


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


def _read_inputs(table: pa.Table, source: Source, pipeline: Pipeline | None) -> Tensor:
    if source.manifest.kind is Kind.ARRAYS:
        return _read_arrays(table, source.manifest, source.targets.columns[0], pipeline)

    def prefix(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pipeline is None:
            return pixels
        return pipeline.apply_prefix(torch.from_numpy(pixels)).numpy()

    mode: Mode = "L" if source.manifest.image_mode == "L" else "RGB"
    key = f"{source.manifest.data_sha256}/{mode}/{_prefix_key(pipeline)}"
    return torch.from_numpy(packed_images(table, mode, prefix, key, source.cache, source.threads))


def _read_arrays(table: pa.Table, manifest: Manifest, name: str, pipeline: Pipeline | None) -> Tensor:
    """A uint8 image set keeps its bytes, with the prefix applied; all else is float32."""
    values = _array_column(table, name, manifest)
    inputs = array_row(values[0]) if len(values) else torch.empty(0)
    if inputs.dtype != torch.uint8:
        return torch.from_numpy(values.astype(np.float32))
    rows = [array_row(value) for value in values]
    return torch.stack([pipeline.apply_prefix(row) for row in rows] if pipeline is not None else rows)


def _array_column(table: pa.Table, name: str, manifest: Manifest) -> NDArray[Any]:
    """[N, *shape] of a fixed_size_list column, or [N] of a scalar one."""
    column = table.column(name).combine_chunks()
    shape = manifest.features[name].shape
    if pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return np.array(column.to_numpy(zero_copy_only=False)).reshape(table.num_rows, *shape)
