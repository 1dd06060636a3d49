"""Dataset + transforms -> batches on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
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
from core.data.splits import set_aside
from core.data.targets import Targets, label_of
from core.errors import Invalid
from core.nets.randomness import permutation
from core.nets.transforms import Pipeline
from core.predict import array_row
from modelyard.specs import Split

# N rows of the dataset, B rows in the batch


@dataclass(frozen=True)
class Batch:
    inputs: Tensor
    targets: Tensor
    rows: int


@dataclass(frozen=True)
class Rows:
    """All rows of a dataset.

    `train_inputs` and `eval_inputs` are [N, …]: uint8 images after the prefix of the train and the eval
    transforms (memory-mapped, one and the same where the prefixes are), or float32. `targets` is [N]
    int64 class indices or float32 values. `train`, `validation`, `test` are row numbers.
    """

    train_inputs: Tensor
    eval_inputs: Tensor
    targets: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    prepared: list[FittedColumn]


@dataclass(frozen=True)
class Batches:
    """Some rows in batches. `pipeline` is None where rows go to the net as they are."""

    inputs: Tensor
    targets: Tensor
    index: Tensor
    pipeline: Pipeline | None
    batch_size: int
    seed: int
    device: torch.device
    shuffle: bool = False
    drop_last: bool = False
    merge_single: bool = False

    def __len__(self) -> int:
        return len(self._bounds())

    def of_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_batch` on. The order is a function of seed and epoch."""
        order = permutation(self.seed, epoch, len(self.index)) if self.shuffle else None
        index = self.index if order is None else self.index[order]
        for start, end in self._bounds()[first_batch:]:
            yield self._batch(index[start:end], epoch)

    def in_order(self) -> Iterator[Batch]:
        for start, end in self._bounds():
            yield self._batch(self.index[start:end], epoch=0)

    def _bounds(self) -> list[tuple[int, int]]:
        """Where each batch starts and ends. Batch norm cannot train on one row: with `merge_single` a
        last batch of one is merged into the one before."""
        total, size = len(self.index), self.batch_size
        if self.drop_last and total >= size:
            total -= total % size
        bounds = [(start, min(start + size, total)) for start in range(0, total, size)]
        if self.merge_single and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
            bounds[-2:] = [(bounds[-2][0], bounds[-1][1])]
        return bounds

    def _batch(self, index_B: Tensor, epoch: int) -> Batch:
        inputs = self.inputs[index_B]
        if self.pipeline is not None:
            inputs = self.pipeline.apply_rest(inputs, self.seed, epoch, index_B)
        targets = self.targets[index_B]
        return Batch(inputs.to(self.device), targets.to(self.device), len(index_B))


@dataclass(frozen=True)
class Source:
    """A dataset on disk and how a spec reads it. `components` is `prepare` with its columns written out."""

    arrow: Path
    manifest: Manifest
    targets: Targets
    split: Split
    components: list[dict[str, Any]]
    train: Pipeline | None
    eval: Pipeline | None
    cache: Path
    threads: int


def open_rows(source: Source) -> Rows:
    table, manifest, targets = open_table(source.arrow), source.manifest, source.targets
    targets_N = _read_targets(table, manifest, targets)
    train = manifest.rows_of("train")
    labels_N = targets_N[train.start : train.stop] if targets.task == "classification" else None
    train_index, validation_index = set_aside(manifest, source.split, labels_N)
    prepared: list[FittedColumn] = []
    if manifest.kind is Kind.TABLE:
        columns = prepare.columns_from_arrow(table, targets.inputs)
        training = {name: values[train_index] for name, values in columns.items()}
        prepared = prepare.fit(source.components, targets.inputs, training, manifest)
        inputs_NF = prepare.apply(prepared, columns)
        _require_finite(inputs_NF, prepared)
        train_inputs = eval_inputs = torch.from_numpy(inputs_NF)
    else:
        eval_inputs = _read_inputs(table, source, source.eval)
        shared = _prefix_key(source.train) == _prefix_key(source.eval)
        train_inputs = eval_inputs if shared else _read_inputs(table, source, source.train)
    return Rows(
        train_inputs,
        eval_inputs,
        torch.from_numpy(targets_N),
        torch.from_numpy(train_index),
        torch.from_numpy(validation_index),
        torch.arange(manifest.rows_of("test").start, manifest.rows_of("test").stop),
        prepared,
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


def _read_targets(table: pa.Table, manifest: Manifest, targets: Targets) -> NDArray[Any]:
    column = table.column(targets.target)
    if targets.task == "regression":
        values = _array_column(table, targets.target, manifest) if manifest.kind is Kind.ARRAYS else None
        if values is None:
            values = column.cast("float64", safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            found = np.ascontiguousarray(values, dtype=np.float32)
        if not np.isfinite(found).all():
            raise Invalid(
                f"the target {targets.target!r} has missing values, or such as float32 cannot hold: "
                "leave those rows out"
            )
        return found
    if manifest.kind is not Kind.TABLE:
        return np.array(column.to_numpy(zero_copy_only=False), dtype=np.int64)
    index_of = {name: index for index, name in enumerate(targets.classes or [])}
    labels = [None if value is None else label_of(value) for value in column.to_pylist()]
    if None in labels:
        raise Invalid(f"the target {targets.target!r} is missing in row {labels.index(None)}: leave it out")
    unknown = sorted({str(label) for label in labels if label not in index_of})
    if unknown:
        raise Invalid(
            f"the target {targets.target!r} has values that the training split lacks: {unknown[:10]}"
        )
    return np.array([index_of[label] for label in labels if label is not None], dtype=np.int64)


def _require_finite(inputs_NF: NDArray[np.float32], prepared: list[FittedColumn]) -> None:
    """`prepare` was completed for what the training split lacks; another split may lack more."""
    at = 0
    for column in prepared:
        if not np.isfinite(inputs_NF[:, at : at + column.width]).all():
            raise Invalid(
                f"the input {column.name!r} is missing in a row of val or test, and in none of train, or is "
                'over float32: leave those rows out, or add {"type": "Impute"} to prepare'
            )
        at += column.width


def _prefix_key(pipeline: Pipeline | None) -> str:
    return pipeline.prefix_key() if pipeline is not None else ""


def _read_inputs(table: pa.Table, source: Source, pipeline: Pipeline | None) -> Tensor:
    if source.manifest.kind is Kind.ARRAYS:
        return _read_arrays(table, source.manifest, source.targets.inputs[0], pipeline)

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
