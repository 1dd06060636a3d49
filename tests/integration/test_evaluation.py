"""Two versions on the same rows, against torch and scikit-learn by hand."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import nn

from core.data.splits import set_aside
from core.evaluation import Incomparable, Measured, Order, Reply, answer, measure
from core.nets.artifacts import Golden
from modelyard.specs import Split
from tests.prepared import manifest_of
from tests.rivals import clusters, linear, side, table_side, write_arrays, write_table

# N rows

MACRO_F1 = {"type": "MulticlassF1Score", "num_classes": 3, "average": "macro", "name": "f1"}


def predicted(net: nn.Module, x: NDArray[np.float32]) -> NDArray[np.int64]:
    with torch.inference_mode():
        found: NDArray[np.int64] = net(torch.from_numpy(x)).argmax(dim=1).numpy()
    return found


def test_a_metric_that_one_of_them_never_had_is_measured_of_both(tmp_path: Path) -> None:
    x, y = clusters(600)
    dataset = write_arrays(tmp_path / "data.arrow", x, y)
    one, other = linear(4), linear(1)
    order = Order(
        side(tmp_path, "m@2", one, tmp_path / "data.arrow", dataset, metrics=[MACRO_F1]),
        side(tmp_path, "m@1", other, tmp_path / "data.arrow", dataset),
        "val",
        MACRO_F1,
    )
    reply = measure(order)
    assert isinstance(reply, Measured)
    _, rows = set_aside(dataset, Split(), y)
    assert (reply.rows, reply.left_out) == (len(rows), 0)
    expected = [f1_score(y[rows], predicted(net, x[rows]), average="macro") for net in (one, other)]
    assert [reply.candidate, reply.incumbent] == pytest.approx(expected, abs=1e-6)
    assert reply.candidate < reply.incumbent


def test_rows_that_either_learned_from_are_left_out(tmp_path: Path) -> None:
    x, y = clusters(900)
    dataset = write_arrays(tmp_path / "data.arrow", x, y)
    one, other = linear(1), linear(4)
    order = Order(
        side(tmp_path, "m@2", one, tmp_path / "data.arrow", dataset, split={"validation": 0.3, "seed": 1}),
        side(tmp_path, "m@1", other, tmp_path / "data.arrow", dataset, split={"validation": 0.3, "seed": 0}),
        "val",
        "accuracy",
    )
    reply = measure(order)
    assert isinstance(reply, Measured)
    learned, _ = set_aside(dataset, Split(0.3, seed=1), y)
    _, pinned = set_aside(dataset, Split(0.3, seed=0), y)
    rows = np.setdiff1d(pinned, learned)
    assert (reply.rows, reply.left_out) == (len(rows), len(pinned) - len(rows))
    expected = [(predicted(net, x[rows]) == y[rows]).mean() for net in (one, other)]
    assert [reply.candidate, reply.incumbent] == pytest.approx(expected, abs=1e-9)


def test_a_dataset_that_grew_is_compared_on_the_test_rows_of_the_smaller_one(tmp_path: Path) -> None:
    x, y = clusters(400)
    more_x, more_y = clusters(300, seed=7)
    before = write_arrays(tmp_path / "1.arrow", x, y, test=100)
    # Ten of the rows that test the incumbent have found their way into the training rows of the candidate.
    grown_x, grown_y = (np.concatenate(parts) for parts in ((more_x, x[-10:], x), (more_y, y[-10:], y)))
    after = write_arrays(tmp_path / "2.arrow", grown_x, grown_y, test=100)
    learned, _ = set_aside(after, Split(), grown_y[:-100])
    leaked = [row + 90 for row in range(10) if 300 + row in learned]
    one, other = linear(1), linear(4)
    order = Order(
        side(tmp_path, "m@2", one, tmp_path / "2.arrow", after),
        side(tmp_path, "m@1", other, tmp_path / "1.arrow", before),
        "test",
        "accuracy",
    )
    reply = measure(order)
    assert isinstance(reply, Measured)
    assert reply.left_out == len(leaked) > 0
    rows = 300 + np.setdiff1d(np.arange(100), leaked)
    expected = [(predicted(net, x[rows]) == y[rows]).mean() for net in (one, other)]
    assert [reply.candidate, reply.incumbent] == pytest.approx(expected, abs=1e-9)


def test_classes_in_another_order_are_the_same_classes(tmp_path: Path) -> None:
    x, y = clusters(600)
    names, turned = ["b", "c", "a"], np.array([2, 0, 1])
    before = write_arrays(tmp_path / "1.arrow", x, y, test=200)
    after = write_arrays(tmp_path / "2.arrow", x, turned[y], test=200, classes=names)
    net = linear(2)
    again = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        order_C = torch.from_numpy(np.argsort(turned))
        again[0].weight.copy_(net[0].weight[order_C])
        again[0].bias.copy_(net[0].bias[order_C])
    order = Order(
        side(tmp_path, "m@2", again, tmp_path / "2.arrow", after),
        side(tmp_path, "m@1", net, tmp_path / "1.arrow", before),
        "test",
        "accuracy",
    )
    reply = measure(order)
    assert isinstance(reply, Measured)
    assert reply.candidate == reply.incumbent == (predicted(net, x[400:]) == y[400:]).mean()


def test_where_too_few_rows_are_left_nothing_is_compared(tmp_path: Path) -> None:
    x, y = clusters(300)
    dataset = write_arrays(tmp_path / "data.arrow", x, y)
    order = Order(
        side(tmp_path, "m@2", linear(1), tmp_path / "data.arrow", dataset, split={"seed": 1}),
        side(tmp_path, "m@1", linear(4), tmp_path / "data.arrow", dataset),
        "val",
        "accuracy",
    )
    reply = measure(order)
    assert isinstance(reply, Incomparable)
    assert "20 are needed" in reply.reason


def test_other_classes_are_another_question(tmp_path: Path) -> None:
    x, y = clusters(300)
    before = write_arrays(tmp_path / "1.arrow", x, y, test=100)
    after = write_arrays(tmp_path / "2.arrow", x, y, test=100, classes=["a", "b", "d"])
    order = Order(
        side(tmp_path, "m@2", linear(1), tmp_path / "2.arrow", after),
        side(tmp_path, "m@1", linear(4), tmp_path / "1.arrow", before),
        "test",
        "accuracy",
    )
    assert measure(order) == Incomparable("the classes of m@2 are not those of m@1")


def test_weights_that_do_not_answer_their_golden_samples_are_not_measured(tmp_path: Path) -> None:
    x, y = clusters(300)
    dataset = write_arrays(tmp_path / "data.arrow", x, y)
    damaged = [Golden([0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0])]
    order = Order(
        side(tmp_path, "m@2", linear(1), tmp_path / "data.arrow", dataset, golden=damaged),
        side(tmp_path, "m@1", linear(4), tmp_path / "data.arrow", dataset),
        "val",
        "accuracy",
    )
    reply = msgspec.msgpack.decode(answer(msgspec.msgpack.encode(order)), type=Reply)
    assert isinstance(reply, Incomparable)
    assert "the golden samples of m@2" in reply.reason


def test_rows_of_a_table_are_known_by_what_both_versions_read(tmp_path: Path) -> None:
    """Two regressions of one table: the candidate reads one column more, and another part of the rows."""
    random = np.random.default_rng(3)
    cells: dict[str, Any] = {name: random.normal(size=400).tolist() for name in ("a", "b")}
    cells["y"] = [2 * a - b for a, b in zip(cells["a"], cells["b"], strict=True)]
    dataset = manifest_of(cells)
    write_table(tmp_path / "data.arrow", pa.table(cells))
    splits = [{"validation": 0.4, "seed": seed} for seed in (1, 0)]
    sides = [
        table_side(tmp_path, name, weights, dataset, split)
        for (name, weights), split in zip(
            {"m@2": {"a": 2.0, "b": -0.5}, "m@1": {"a": 1.5}}.items(), splits, strict=True
        )
    ]
    reply = measure(Order(*sides, "val", "mae"))
    assert isinstance(reply, Measured)
    (learned, _), (_, pinned) = (set_aside(dataset, msgspec.convert(one, Split), None) for one in splits)
    rows = np.setdiff1d(pinned, learned)
    a, b, y = (np.array(cells[name])[rows] for name in "aby")
    expected = [np.abs(2 * a - 0.5 * b - y).mean(), np.abs(1.5 * a - y).mean()]
    assert reply.rows == len(rows)
    assert [reply.candidate, reply.incumbent] == pytest.approx(expected, rel=1e-5)
