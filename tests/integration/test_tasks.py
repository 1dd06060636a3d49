"""Every loss, from its plan through a training to a version that predicts, in one process."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from core.data.manifest import Manifest
from core.nets.components.losses import FAMILY
from core.nets.plan import Checked, Source, check
from core.predict import Predictor
from modelyard.specs import Prediction
from tests.attempts import first_order
from tests.fakes import FakeLink
from tests.make_data import csv_bytes, npz_bytes
from workers.attempt import Attempt
from workers.ingest.run import ingest
from workers.messages import EpochEnded, Saved, Verified

ROWS = 120
RANDOM = np.random.default_rng(11)
X = RANDOM.normal(size=(ROWS, 4)).round(4)
KIND = np.where(X[:, 0] > 0.5, "tall", np.where(X[:, 0] < -0.5, "low", "mid"))

Columns = dict[str, Any]


class Ran(msgspec.Struct):
    checked: Checked
    metrics: dict[str, float]
    verified: Verified
    predictions: list[Prediction]


def run(folder: Path, columns: Columns, instances: int = 3, **fields: Any) -> Ran:
    """Ingests a table of four inputs and these columns, plans, trains two epochs, verifies, predicts."""
    names = ["a", "b", "c", "d", *columns]
    rows = zip(*X.T.tolist(), *(list(values) for values in columns.values()), strict=True)
    data = csv_bytes([names, *rows])
    manifest = _ingested(folder, data, "table.csv")
    spec = {"name": "m", "dataset": "d", "inputs": ["a", "b", "c", "d"], "trainer": {"epochs": 2}} | fields
    named = spec["inputs"]
    used = named if isinstance(named, list) else [name for group in named.values() for name in group]
    rows_of_x = [dict(zip("abcd", row, strict=True)) for row in X[:instances].tolist()]
    inputs = [{name: row[name] for name in used} for row in rows_of_x]
    return _trained(folder, manifest, spec, inputs)


def _ingested(folder: Path, data: bytes, filename: str) -> Manifest:
    (folder / filename).write_bytes(data)
    (folder / "scratch").mkdir()
    encoded = ingest(folder / filename, folder / "data.arrow", folder / "scratch", "auto", "{}", filename)
    (folder / "manifest.json").write_bytes(encoded)
    return msgspec.json.decode(encoded, type=Manifest)


def _trained(folder: Path, manifest: Manifest, spec: dict[str, Any], instances: list[Any]) -> Ran:
    checked = check(spec, Source("d@1", manifest))
    link = FakeLink()
    order = first_order(checked.spec, folder)
    Attempt(order, link).run()
    verified = link.last(Verified)
    predictor = Predictor.load(Path(verified.manifest.path), Path(link.last(Saved).weights.path))
    assert verified.difference <= verified.tolerance
    return Ran(checked, link.last(EpochEnded).metrics, verified, predictor.predict(instances, top_k=2))


def net(outputs: int, *last: dict[str, Any]) -> dict[str, Any]:
    layers = [{"type": "Linear", "out_features": 8}, {"type": "ReLU"}]
    return {
        "type": "Sequential",
        "layers": [*layers, {"type": "Linear", "out_features": outputs}, *last],
    }


def towers(names: list[str], width: int) -> dict[str, Any]:
    """One Linear over each of several inputs, shared; its outputs are the net's."""
    nodes = [
        {"name": f"of_{name}", "type": "Linear", "out_features": width, "inputs": [name], "share": "tower"}
        for name in names
    ]
    return {"type": "Graph", "nodes": nodes, "output": [f"of_{name}" for name in names]}


QUANTITY = {"y": (2 * X[:, 0] + X[:, 1] + 20).round(4)}
COUNT = {"y": np.round(np.exp(X[:, 0])).astype(int)}
CLASS = {"y": KIND}
TWO = {"y": np.where(X[:, 0] > 0, "yes", "no")}
FLAGS = {"wet": (X[:, 0] > 0).astype(int), "hot": (X[:, 1] > 0.3).astype(int)}
LABELS = {"target": ["wet", "hot"], "task": "multilabel"}
ALIKE = {"y": np.where(X[:, 0] * X[:, 2] > 0, 1, -1)}
SHARE = (1 / (1 + np.exp(-X[:, 0]))).round(4)
SHARES = {"p": SHARE, "q": 1 - SHARE}
PAIRS = {"left": ["a", "b"], "right": ["c", "d"]}

#: columns, further fields of the spec, which of a prediction's fields are filled.
CASES: dict[str, tuple[Columns, dict[str, Any], str]] = {
    "CrossEntropyLoss": (CLASS, {"model": net(3), "loss": {"class_weights": "balanced"}}, "label"),
    "NLLLoss": (CLASS, {"model": net(3, {"type": "LogSoftmax", "dim": 1})}, "label"),
    "MultiMarginLoss": (CLASS, {"model": net(3)}, "label"),
    "BCELoss": (FLAGS, LABELS | {"model": net(2, {"type": "Sigmoid"})}, "labels"),
    "BCEWithLogitsLoss": (FLAGS, LABELS | {"model": net(2), "loss": {"pos_weight": "balanced"}}, "labels"),
    "SoftMarginLoss": (FLAGS, LABELS | {"model": net(2)}, "labels"),
    "MultiLabelMarginLoss": (FLAGS, LABELS | {"model": net(2)}, "labels"),
    "MultiLabelSoftMarginLoss": (FLAGS, LABELS | {"model": net(2)}, "labels"),
    "MSELoss": (QUANTITY, {"model": net(1)}, "value"),
    "L1Loss": (QUANTITY, {"model": net(1)}, "value"),
    "SmoothL1Loss": (QUANTITY, {"model": net(1)}, "value"),
    "HuberLoss": (QUANTITY, {"model": net(1)}, "value"),
    "KLDivLoss": (
        SHARES,
        {"model": net(2, {"type": "LogSoftmax", "dim": 1}), "target": ["p", "q"]},
        "value",
    ),
    "PoissonNLLLoss": (COUNT, {"model": net(1)}, "value"),
    "GaussianNLLLoss": (QUANTITY, {"model": net(2)}, "value"),
    "HingeEmbeddingLoss": (ALIKE, {"model": net(1, {"type": "Softplus"})}, "value"),
    "CosineEmbeddingLoss": (ALIKE, {"model": towers(list(PAIRS), 3), "inputs": PAIRS}, "value"),
    "MarginRankingLoss": (ALIKE, {"model": towers(list(PAIRS), 1), "inputs": PAIRS}, "value"),
    "TripletMarginLoss": (
        {},
        {
            "model": towers(["anchor", "near", "far"], 3),
            "inputs": {"anchor": ["a"], "near": ["b"], "far": ["c"]},
        },
        "value",
    ),
}


def test_every_loss_of_the_family_is_run() -> None:
    assert set(CASES) == set(FAMILY.names)


@pytest.mark.parametrize("loss", CASES)
def test_a_loss_trains_and_its_version_predicts(loss: str, tmp_path: Path) -> None:
    columns, fields, filled = CASES[loss]
    fields = fields | {"loss": {"type": loss} | fields.get("loss", {})}
    ran = run(tmp_path, columns, **fields)
    assert np.isfinite([ran.metrics["train_loss"], ran.metrics["val_loss"]]).all()
    for prediction in ran.predictions:
        answer = msgspec.to_builtins(prediction)
        assert filled in answer
        assert "error" not in answer
    assert (ran.verified.evaluation is not None) == (filled != "value")


def test_two_classes_may_be_one_output(tmp_path: Path) -> None:
    spec = {"model": net(1), "loss": {"type": "BCEWithLogitsLoss"}, "metrics": ["f1", "BinaryAUROC"]}
    ran = run(tmp_path, TWO, **spec, optimizer={"type": "Adam", "lr": 0.05}, trainer={"epochs": 20})
    assert ran.checked.spec["task"] == "classification"
    assert ran.metrics["val_accuracy"] > 0.8
    assert ran.metrics["val_binary_auroc"] > 0.8
    given = [prediction.label for prediction in ran.predictions]
    assert given == TWO["y"][: len(given)].tolist()
    for prediction in ran.predictions:
        assert isinstance(prediction.top, list)
        assert sum(scored.score for scored in prediction.top) == pytest.approx(1.0)


def test_a_standardised_target_is_measured_and_answered_in_its_own_unit(tmp_path: Path) -> None:
    quantity = {"y": (1000 * (2 * X[:, 0] + X[:, 1]) + 50_000).round(3)}
    ran = run(
        tmp_path,
        quantity,
        model=net(1),
        target_transform=[{"type": "Standardize"}],
        optimizer={"type": "Adam", "lr": 0.05},
        trainer={"epochs": 40},
        metrics=["rmse"],
    )
    assert ran.metrics["val_loss"] < 0.1
    assert 10 < ran.metrics["val_mae"] < 1000
    assert ran.metrics["val_rmse"] >= ran.metrics["val_mae"]
    values = [prediction.value for prediction in ran.predictions]
    assert values == pytest.approx(quantity["y"][: len(values)].tolist(), abs=2000)


def test_binned_quantities_are_answered_as_their_intervals(tmp_path: Path) -> None:
    ran = run(tmp_path, QUANTITY, model=net(3), target_transform=[{"type": "Bin", "quantiles": 3}])
    assert ran.verified.classes is not None
    assert [name[0] for name in ran.verified.classes] == ["(", "[", "["]
    assert all(prediction.label in ran.verified.classes for prediction in ran.predictions)


def test_one_hot_classes_train_by_squared_error(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        CLASS,
        model=net(3),
        loss={"type": "MSELoss"},
        target_transform=[{"type": "OneHot"}],
        optimizer={"type": "Adam", "lr": 0.05},
        trainer={"epochs": 20},
    )
    assert ran.checked.spec["task"] == "classification"
    assert ran.metrics["val_accuracy"] > 0.6


def test_several_quantities_are_answered_side_by_side(tmp_path: Path) -> None:
    columns = {"u": QUANTITY["y"], "v": (X[:, 2] - 5).round(4)}
    ran = run(tmp_path, columns, model=net(2), target=["u", "v"])
    assert ran.checked.spec["target"] == ["u", "v"]
    assert all(isinstance(prediction.value, list) for prediction in ran.predictions)


def test_the_table_of_a_version_counts_the_rows_of_the_test_split(tmp_path: Path) -> None:
    shift = RANDOM.normal(size=(30, 4)).astype("float32")
    data = npz_bytes(
        x=X.astype("float32"), y=KIND, x_test=shift, y_test=np.where(shift[:, 0] > 0, "tall", "low")
    )
    manifest = _ingested(tmp_path, data, "arrays.npz")
    spec = {"name": "m", "dataset": "d", "model": net(3), "metrics": ["f1"], "trainer": {"epochs": 1}}
    ran = _trained(tmp_path, manifest, spec, X[:2].tolist())
    evaluation = ran.verified.evaluation
    assert evaluation is not None
    assert evaluation["split"] == "test"
    assert [row["label"] for row in evaluation["per_class"]] == ["low", "mid", "tall"]
    assert sum(row["support"] for row in evaluation["per_class"]) == 30
    right = sum(evaluation["confusion_matrix"][k][k] for k in range(3))
    assert ran.verified.test_metrics["test_accuracy"] == pytest.approx(right / 30)
    assert "test_f1" in ran.verified.test_metrics
