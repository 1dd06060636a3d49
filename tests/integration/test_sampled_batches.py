"""From a job's split and sampler to its batches: what the plan counts is what the loader gives."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from core.data.manifest import ColumnStats, Kind, Manifest
from core.nets.plan import Checked, Source, check
from core.nets.sampling import order_of
from core.nets.transforms import Pipeline
from modelyard.specs import Feature
from tests.attempts import first_order
from tests.fakes import FakeLink
from workers.attempt import Attempt
from workers.batches import Batches

ROWS = 120
MODEL = {
    "type": "Sequential",
    "layers": [
        {"type": "Linear", "out_features": 3},
        {"type": "BatchNorm1d"},
        {"type": "Linear", "out_features": 2},
    ],
}


def write_dataset(folder: Path) -> Manifest:
    """Rows of 17 patients of 1 to 13 rows; the class `rare` has a tenth of them; a weight a row."""
    random = np.random.default_rng(4)
    patients = np.sort(random.integers(0, 17, ROWS))
    columns = {
        "number": pa.array(np.arange(ROWS, dtype=np.float64)),
        "patient": pa.array([f"p{patient}" for patient in patients]),
        "weight": pa.array(random.integers(0, 3, ROWS)),
        "kind": pa.array(np.where(random.random(ROWS) < 0.1, "rare", "usual")),
    }
    table = pa.table(columns)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    stats, features = {}, {}
    for name in table.column_names:
        values = table.column(name).to_pylist()
        numbers = {} if isinstance(values[0], str) else {"min": min(values), "max": max(values)}
        stats[name] = ColumnStats(ROWS, values=sorted(Counter(values).items()), **numbers)
        dtype = {"double": "float64"}.get(str(table.column(name).type), str(table.column(name).type))
        features[name] = Feature(dtype, [])
    manifest = Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": ROWS},
        features=features,
        data_sha256="d" * 64,
        data_bytes=1,
        columns=stats,
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return manifest


def prepared(folder: Path, split: dict[str, Any], **trainer: Any) -> tuple[Checked, Attempt]:
    manifest = write_dataset(folder)
    raw = {
        "name": "m",
        "dataset": "d@1",
        "inputs": ["number"],
        "prepare": [],
        "target": "kind",
        "model": MODEL,
        "split": split,
        "trainer": {"batch_size": 8, "seed": 3, **trainer},
    }
    checked = check(raw, Source("d@1", manifest))
    order = first_order(checked.spec, folder)
    return checked, Attempt(order, FakeLink())


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    "split",
    [{}, {"group": "patient"}, {"group": "patient", "stratify": False, "validation": 0.35, "seed": 11}],
)
@pytest.mark.parametrize(
    "sampler",
    [
        None,
        {"type": "SequentialSampler"},
        {"type": "RandomSampler", "num_samples": 300},
        {"type": "RandomSampler", "replacement": True, "num_samples": 25},
        {"type": "WeightedRandomSampler", "weights": "balanced"},
        {"type": "WeightedRandomSampler", "weights": "weight", "num_samples": 33},
        {"type": "WeightedRandomSampler", "weights": "weight", "num_samples": 20, "replacement": False},
        {"type": "SubsetRandomSampler", "indices": [0, 5, 9, 2, 40, 41, 42, 43, 44]},
    ],
)
def test_an_epoch_has_as_many_batches_as_the_plan_says(
    tmp_path: Path, sampler: dict[str, Any] | None, split: dict[str, Any], drop_last: bool
) -> None:
    checked, attempt = prepared(tmp_path, split, sampler=sampler, drop_last=drop_last)
    _, training, _ = attempt.begin()
    batches = list(training.train.of_epoch(0))
    assert len(batches) == len(training.train) == checked.plan.steps_per_epoch


def test_no_patient_trains_and_validates(tmp_path: Path) -> None:
    _, attempt = prepared(tmp_path, {"group": "patient", "validation": 0.3})
    rows = attempt.begin()[0].rows
    table = pa.ipc.open_file(str(tmp_path / "data.arrow")).read_all()
    patient = table.column("patient").to_pylist()
    training, validation = ({patient[row] for row in index} for index in (rows.train, rows.validation))
    assert training.isdisjoint(validation)
    assert len(training | validation) == len(set(patient))
    assert len(rows.validation) == 36


def test_balanced_rows_come_from_each_class_equally_often(tmp_path: Path) -> None:
    sampler = {"type": "WeightedRandomSampler", "weights": "balanced", "num_samples": 10_000}
    _, attempt = prepared(tmp_path, {}, sampler=sampler)
    data, training, _ = attempt.begin()
    drawn = torch.cat([batch.targets for batch in training.train.of_epoch(0)])
    assert torch.bincount(data.rows.targets[data.rows.train])[0] < 20
    # Half of 10,000 with a standard deviation of 50.
    assert abs(int(drawn.sum()) - 5000) < 250


def test_rows_of_weight_zero_are_never_drawn_and_others_in_proportion(tmp_path: Path) -> None:
    sampler = {"type": "WeightedRandomSampler", "weights": "weight", "num_samples": 20_000}
    _, attempt = prepared(tmp_path, {}, sampler=sampler)
    data, training, _ = attempt.begin()
    places = training.train.order.places(0)  # type: ignore[union-attr]  # given by `build`
    table = pa.ipc.open_file(str(tmp_path / "data.arrow")).read_all()
    weights = torch.tensor(table.column("weight").to_pylist())[data.rows.train]
    counts = torch.bincount(weights[places], minlength=3)
    shares = torch.bincount(weights, weights=weights.double(), minlength=3) / weights.sum()
    assert counts[0] == 0
    assert torch.allclose(counts / 20_000, shares.float(), atol=0.02)


def test_a_row_drawn_twice_in_an_epoch_is_transformed_anew() -> None:
    # A flip of one image in sixteen draws of an epoch: all alike would be one chance in 32,768.
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    image[..., 0] = 255
    transforms = [
        {"type": "RandomHorizontalFlip", "p": 0.5},
        {"type": "ToDtype", "dtype": "float32", "scale": True},
    ]
    sampler = {"type": "RandomSampler", "replacement": True, "num_samples": 16}
    batches = Batches(
        (image,),
        torch.zeros(1),
        torch.zeros(1, dtype=torch.int64),
        Pipeline.from_spec(transforms),
        4,
        5,
        torch.device("cpu"),
        order=order_of(sampler, True, 5, 1),
    )
    flipped = torch.cat([batch.inputs[0][:, 0, 0, -1] for batch in batches.of_epoch(0)])
    assert 0 < flipped.sum() < 16
    again = torch.cat([batch.inputs[0][:, 0, 0, -1] for batch in batches.of_epoch(0, first_batch=2)])
    assert torch.equal(again, flipped[8:])
