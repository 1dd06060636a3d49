"""Two versions measured on the same rows, as users would ask them: what the child of a comparison does.

The rows are those that were set aside for the one version, without any that either of the two learned from:
a net that has seen the answers is no better for knowing them.
"""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from core.data.arrow import instances, open_table
from core.data.instances import BadInstance
from core.data.manifest import Manifest
from core.data.splits import TRAIN, rows_to_test, set_aside, validation_split
from core.data.target_columns import fit_targets, read_targets
from core.data.targets import Targets, resolve_targets
from core.errors import ModelyardError
from core.nets.measures import MEASURES, Measures, TorchMetric
from core.nets.metrics import metric_name
from core.predict import Predictor
from modelyard.specs import JobSpec
from modelyard.specs.jobspec import Component

# B rows in a batch, N rows of a dataset, C classes or values

#: On fewer rows a difference says little.
MIN_ROWS = 20
#: Rows that are decoded and go through a net at once.
BATCH_ROWS = 256

Split: TypeAlias = Literal["val", "test"]


class Side(Struct, frozen=True):
    """A version and what it learned from. `name` is model@version; `manifest`, `weights` and `arrow` are
    paths, `dataset` and `spec` the JSON of the dataset's manifest and of the resolved spec."""

    name: str
    manifest: str
    weights: str
    arrow: str
    dataset: bytes
    spec: bytes


class Order(Struct, frozen=True):
    """`metric` without its prefix, as one of the two specs lists it. The rows are those of `incumbent`."""

    candidate: Side
    incumbent: Side
    split: Split
    metric: str | Component


class Measured(Struct, frozen=True, tag=True):
    """`left_out` are rows of the split that one of the two learned from."""

    candidate: float
    incumbent: float
    rows: int
    left_out: int


class Incomparable(Struct, frozen=True, tag=True):
    """`reason` ends a sentence that says they cannot be compared."""

    reason: str


class Broken(Struct, frozen=True, tag=True):
    """A bug of ours, with its traceback for the log."""

    traceback: str


Reply: TypeAlias = Measured | Incomparable | Broken

#: torch's allocator on the CPU says so in a RuntimeError.
ALLOCATOR_FAILS = "can't allocate memory"

_orders = msgspec.msgpack.Decoder(Order)


def answer(payload: bytes) -> bytes:
    """In the child: one encoded Order to one encoded Reply."""
    reply: Reply
    try:
        reply = measure(_orders.decode(payload))
    except ModelyardError as error:
        reply = Incomparable(error.detail)
    except Exception as error:
        reply = Broken(traceback.format_exc())
        if isinstance(error, MemoryError) or ALLOCATOR_FAILS in str(error):
            reply = Incomparable("measuring them takes more memory than a comparison may have")
    return msgspec.msgpack.encode(reply)


def measure(order: Order) -> Measured | Incomparable:
    incumbent, candidate = _open(order.incumbent), _open(order.candidate)
    reason = _why_not(incumbent, candidate)
    if reason is not None:
        return Incomparable(reason)
    pinned = incumbent.validation if order.split == "val" else incumbent.test
    rows = _unseen(incumbent, candidate, pinned)
    if len(rows) < MIN_ROWS:
        return Incomparable(
            f"of the {len(pinned)} rows of {order.split} that {incumbent.name} was measured on, {len(rows)} "
            f"were learned from by neither; {MIN_ROWS} are needed"
        )
    values: list[float] = []
    for side in (candidate, incumbent):
        try:
            values.append(_value(side, incumbent, rows, order.metric))
        except BadInstance as error:
            return Incomparable(f"{side.name} cannot read the rows of {incumbent.name}: {error.detail}")
    if not np.isfinite(values).all():
        return Incomparable(f"{metric_name(order.metric)} says nothing of these {len(rows)} rows")
    return Measured(values[0], values[1], len(rows), len(pinned) - len(rows))


@dataclass(frozen=True)
class _Opened:
    """`truth` is [N] class indices, else [N, …] 0/1 or values in the target's unit, of every row; `train`,
    `validation` and `test` are row numbers."""

    name: str
    predictor: Predictor
    table: pa.Table
    manifest: Manifest
    targets: Targets
    truth: NDArray[Any]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def features(self) -> list[str]:
        return self.targets.columns


def _open(side: Side) -> _Opened:
    """Raises ModelyardError for what is not as it was when the version was registered."""
    manifest = msgspec.json.decode(side.dataset, type=Manifest)
    spec = msgspec.json.decode(side.spec, type=JobSpec)
    targets = resolve_targets(spec, manifest, [], [])
    if targets is None:
        raise ModelyardError(f"the spec of {side.name} cannot be read any more")
    table = open_table(Path(side.arrow))
    read_N = read_targets(table, manifest, targets)
    rows = manifest.rows_of(TRAIN)
    labels_N = read_N[rows.start : rows.stop] if read_N.dtype == np.int64 else None
    groups = None
    if spec.split.group is not None and validation_split(manifest, spec.split) is None:
        groups = table.column(spec.split.group).slice(rows.start, len(rows)).to_pylist()
    train, validation = set_aside(manifest, spec.split, labels_N, groups)
    fitted = fit_targets(read_N, targets, train)
    predictor = Predictor.load(Path(side.manifest), Path(side.weights))
    if (difference := predictor.replay()) > predictor.manifest.tolerance:
        raise ModelyardError(f"the golden samples of {side.name} come out {difference:g} apart here")
    return _Opened(
        name=side.name,
        predictor=predictor,
        table=table,
        manifest=manifest,
        targets=targets,
        truth=read_N if targets.task == "regression" else fitted.values,
        train=train,
        validation=validation,
        test=np.asarray(rows_to_test(manifest, spec.split), dtype=np.int64),
    )


def _why_not(incumbent: _Opened, candidate: _Opened) -> str | None:
    """What makes the answers of the two no answers to one question."""
    if candidate.targets.task != incumbent.targets.task:
        return f"{candidate.name} does {candidate.targets.task}, {incumbent.name} {incumbent.targets.task}"
    if not incumbent.targets.names or candidate.targets.names != incumbent.targets.names:
        return (
            f"{candidate.name} predicts {candidate.targets.names}, {incumbent.name} {incumbent.targets.names}"
        )
    ours, theirs = candidate.predictor.manifest.classes, incumbent.predictor.manifest.classes
    if sorted(ours or []) != sorted(theirs or []):
        return f"the classes of {candidate.name} are not those of {incumbent.name}"
    if candidate.manifest.kind is not incumbent.manifest.kind:
        return f"{candidate.name} takes {candidate.manifest.kind}, {incumbent.name} {incumbent.manifest.kind}"
    lacking = [name for name in candidate.features if name not in incumbent.manifest.features]
    if lacking:
        return f"{candidate.name} reads {lacking}, which the dataset of {incumbent.name} lacks"
    return None


def _unseen(incumbent: _Opened, candidate: _Opened, pinned: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the pinned rows that stand in the training rows of neither, byte for byte. A row of a table is
    what both read of it."""
    columns = [name for name in incumbent.features if name in candidate.manifest.features]
    keys = list(_contents(incumbent, columns, pinned))
    wanted = set(keys)
    seen: set[Any] = set()
    for side in (incumbent, candidate):
        seen.update(key for key in _contents(side, columns, side.train) if key in wanted)
    is_unseen_N = np.array([key not in seen for key in keys], dtype=bool)
    unseen: NDArray[np.int64] = pinned[is_unseen_N]
    return unseen


def _contents(side: _Opened, columns: list[str], rows: NDArray[np.int64]) -> Iterator[Any]:
    """What a row holds, as something that equals for equal rows only."""
    for batch in _batches(rows):
        for row in instances(side.table, side.manifest, columns, batch):
            match row:
                case bytes():
                    yield blake2b(row, digest_size=16).digest()
                case dict():
                    yield tuple(row.values())
                case _:
                    kind = "float64" if row.dtype.kind == "f" else "int64"
                    yield blake2b(row.astype(kind).tobytes(), digest_size=16).digest()


def _value(side: _Opened, incumbent: _Opened, rows: NDArray[np.int64], metric: str | Component) -> float:
    """A metric of one version over rows of the incumbent's dataset. Raises BadInstance for a row that the
    version does not take."""
    measures = _measures(incumbent, metric)
    for batch in _batches(rows):
        read = instances(incumbent.table, incumbent.manifest, side.features, batch)
        answers = side.predictor.outputs([side.predictor.decode(_sent(row)) for row in read])
        truth = torch.from_numpy(incumbent.truth[batch])
        if incumbent.predictor.manifest.classes is not None:
            answers = answers[:, _order(side, incumbent)]
        else:
            answers = answers.double().reshape(truth.shape)
        measures.add(answers, truth)
    return measures.compute()[metric_name(metric)]


class _One:
    """A metric of torchmetrics in the place of the usual ones."""

    def __init__(self, metric: Component, side: _Opened) -> None:
        self._name = metric_name(metric)
        self._metric = TorchMetric(side.targets.task, metric, torch.device("cpu"))

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self._metric.add(outputs, targets)

    def compute(self) -> dict[str, float]:
        return {self._name: self._metric.compute()}


def _measures(side: _Opened, metric: str | Component) -> Measures:
    if isinstance(metric, str):
        return MEASURES[side.targets.task](torch.device("cpu"))
    return _One(metric, side)


def _order(side: _Opened, incumbent: _Opened) -> list[int]:
    """Where each of the incumbent's classes stands among the version's."""
    places = {label: place for place, label in enumerate(side.predictor.manifest.classes or [])}
    return [places[label] for label in incumbent.predictor.manifest.classes or []]


def _sent(row: bytes | dict[str, Any] | NDArray[Any]) -> Any:
    """As a user would send it."""
    return row.tolist() if isinstance(row, np.ndarray) else row


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BATCH_ROWS):
        yield rows[start : start + BATCH_ROWS]
