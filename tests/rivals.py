"""Small datasets on disk and nets on them, as a worker leaves them, for tests that compare versions."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from core.data.manifest import Kind, Manifest
from core.data.prepare import FittedColumn
from core.data.prepare.operations import Standardized
from core.evaluation import Side
from core.nets import artifacts
from core.nets.artifacts import Golden, VersionManifest
from core.nets.plan import Source, check
from modelyard.specs import Feature, Signature

# N rows, C classes

CLASSES = ["a", "b", "c"]
NET = {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 3}]}


def clusters(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[N, 4] values and [N] classes that a linear net tells apart most of the time."""
    random = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int64) % 3
    x = np.eye(3, 4)[y] * 2 + random.normal(size=(count, 4))
    return x.astype(np.float32), y


def linear(seed: int) -> nn.Sequential:
    """Near to what tells `clusters` apart, the nearer the smaller the seed."""
    torch.manual_seed(seed)
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3, 4) + 0.3 * seed * net.weight)
    return nn.Sequential(net)


def write_arrays(
    path: Path, x: NDArray[np.float32], y: NDArray[np.int64], test: int = 0, classes: list[str] = CLASSES
) -> Manifest:
    """`data.arrow` of an `arrays` dataset whose last `test` rows are its split `test`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    write_table(path, pa.table({"x": flat, "y": pa.array(y)}))
    return Manifest(
        format="arrays",
        kind=Kind.ARRAYS,
        splits={"train": len(x) - test, "test": test} if test else {"train": len(x)},
        features={"x": Feature("float32", [x.shape[1]]), "y": Feature("int64", [])},
        data_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        data_bytes=path.stat().st_size,
        classes=classes,
        class_counts={"train": np.bincount(y[: len(y) - test], minlength=len(classes)).tolist()},
    )


def write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def side(
    folder: Path,
    name: str,
    net: nn.Module,
    arrow: Path,
    dataset: Manifest,
    *,
    golden: Sequence[Golden] = (),
    **spec: Any,
) -> Side:
    """A version of `net` that learned from a dataset of arrays; keywords go into the spec."""
    raw = {"name": "m", "dataset": "d@1", "model": NET, **spec}
    resolved = check(raw, Source("d@1", dataset)).spec
    described = artifacts.VersionManifest(
        task="classification",
        kind=Kind.ARRAYS,
        model=resolved["model"],
        row_shape=[4],
        classes=dataset.classes,
        transforms=[],
        prepare=[],
        signature=Signature([], []),
        golden=list(golden),
        tolerance=1e-4,
        raw_shape=[4],
        raw_dtype="float32",
    )
    return _write(folder / name, described, net, arrow, dataset, resolved)


def table_side(
    folder: Path, name: str, weights: Mapping[str, float], dataset: Manifest, split: dict[str, Any]
) -> Side:
    """A version that answers with the columns times their weights, of the folder's `data.arrow`."""
    columns = list(weights)
    net = nn.Sequential(nn.Linear(len(columns), 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([list(weights.values())]))
        net[0].bias.zero_()
    model = {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]}
    raw = {"name": "m", "dataset": "d@1", "model": model, "inputs": columns, "target": "y", "split": split}
    resolved = check(raw, Source("d@1", dataset)).spec
    described = artifacts.VersionManifest(
        task="regression",
        kind=Kind.TABLE,
        model=resolved["model"],
        row_shape=[len(columns)],
        inputs={"input": columns},
        classes=None,
        transforms=[],
        prepare=[FittedColumn(column, "number", [Standardized([0.0], [1.0])]) for column in columns],
        signature=Signature([], []),
        golden=[],
        tolerance=1e-4,
    )
    return _write(folder / name, described, net, folder / "data.arrow", dataset, resolved)


def _write(
    folder: Path,
    described: VersionManifest,
    net: nn.Module,
    arrow: Path,
    dataset: Manifest,
    spec: dict[str, Any],
) -> Side:
    folder.mkdir()
    artifacts.write_manifest(described, folder / "manifest.json")
    artifacts.save(artifacts.plain_state_dict(net), folder / "weights.pt")
    return Side(
        folder.name,
        str(folder / "manifest.json"),
        str(folder / "weights.pt"),
        str(arrow),
        msgspec.json.encode(dataset),
        msgspec.json.encode(spec),
    )
