"""The net's end: which output a loss takes, weights as numbers, and what an answer is made of."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from core.data.manifest import ColumnStats, Kind, Manifest
from core.errors import Invalid
from core.nets.components.losses import FAMILY
from core.nets.plan import Source, check
from core.nets.readout import Readout, read_out
from modelyard.specs import Feature, ProblemError
from tests import manifests

COUNTS = [70, 20, 10]


def net(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequential", "layers": list(layers)}


def linear(outputs: int) -> dict[str, Any]:
    return net({"type": "Linear", "out_features": outputs})


def table(dtype: str, values: list[tuple[Any, int]], names: tuple[str, ...] = ("y",)) -> Manifest:
    """An input `x`, and targets of a dtype with these values."""
    numbers = [value for value, _ in values if not isinstance(value, str)]
    low, high = (min(numbers), max(numbers)) if numbers else (None, None)
    stats = ColumnStats(count=100, values=values, min=low, max=high)
    return Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": 100},
        features={"x": Feature("float64", []), **{name: Feature(dtype, []) for name in names}},
        data_sha256="0" * 64,
        data_bytes=1,
        columns={"x": ColumnStats(count=100, mean=0.0, std=1.0), **dict.fromkeys(names, stats)},
    )


THREE = table("string", list(zip(["a", "b", "c"], COUNTS, strict=True)))
TWO = table("string", [("no", 80), ("yes", 20)])
NUMBER = table("float64", [(0.5, 50), (1.5, 50)])


def resolved(manifest: Manifest, outputs: int, **fields: Any) -> dict[str, Any]:
    raw = {"name": "m", "dataset": "d", "model": linear(outputs), "inputs": ["x"]} | fields
    return check(raw, Source("d@1", manifest)).spec


def refused(manifest: Manifest, outputs: int, **fields: Any) -> list[ProblemError]:
    with pytest.raises(Invalid) as caught:
        resolved(manifest, outputs, **fields)
    return caught.value.errors or []


def test_balanced_class_weights_are_scikit_learns() -> None:
    labels = np.repeat(["a", "b", "c"], COUNTS)
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    for loss in ("CrossEntropyLoss", "MultiMarginLoss", "NLLLoss"):
        spec = resolved(THREE, 3, loss={"type": loss, "class_weights": "balanced"})
        assert spec["loss"]["class_weights"] == pytest.approx(expected.tolist(), rel=1e-12)


def test_classes_are_balanced_as_they_are_after_a_map() -> None:
    merged = [{"type": "Map", "labels": ["b", "c"], "to": "rest"}]
    loss = {"type": "CrossEntropyLoss", "class_weights": "balanced"}
    spec = resolved(THREE, 2, loss=loss, target_transform=merged)
    assert spec["loss"]["class_weights"] == pytest.approx([100 / (2 * 70), 100 / (2 * 30)])


def test_bins_are_balanced_by_their_edges() -> None:
    manifest = table("float64", [(1.0, 60), (2.0, 30), (3.0, 10)])
    loss = {"type": "CrossEntropyLoss", "class_weights": "balanced"}
    spec = resolved(manifest, 2, loss=loss, target_transform=[{"type": "Bin", "edges": [2.0]}])
    assert spec["loss"]["class_weights"] == pytest.approx([100 / (2 * 60), 100 / (2 * 40)])


def test_images_are_balanced_by_the_counts_of_ingest() -> None:
    manifest = manifests.images(classes=["cat", "dog"], class_counts={"train": [900, 100]})
    loss = {"type": "CrossEntropyLoss", "class_weights": "balanced"}
    model = net({"type": "Flatten"}, {"type": "Linear", "out_features": 2})
    spec = resolved(manifest, 2, loss=loss, model=model, inputs=["image"])
    assert spec["loss"]["class_weights"] == pytest.approx([1000 / 1800, 1000 / 200])


def test_a_balanced_positive_weighs_as_much_as_all_the_negatives() -> None:
    loss = {"type": "BCEWithLogitsLoss", "pos_weight": "balanced"}
    assert resolved(TWO, 1, loss=loss)["loss"]["pos_weight"] == [80 / 20]
    manifest = table("int64", [(0, 75), (1, 25)], names=("u", "v"))
    spec = resolved(manifest, 2, loss=loss, target=["u", "v"])
    assert (spec["task"], spec["loss"]["pos_weight"]) == ("multilabel", [3.0, 3.0])


@pytest.mark.parametrize(
    ("loss", "pointer", "word"),
    [
        ({"class_weights": [1.0, 2.0]}, "/loss/class_weights", "each of 3 outputs; 2 came"),
        ({"class_weights": [1.0, -2.0, 1.0]}, "/loss/class_weights/1", ">= 0"),
        ({"class_weights": "balance"}, "/loss/class_weights", '"balance"'),
        ({"weight": [1.0, 1.0, 1.0]}, "/loss/weight", "class_weights"),
        ({"reduction": "none"}, "/loss/reduction", '"mean" | "sum"'),
        ({"label_smoothing": 1.5}, "/loss", "torch refuses"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_with_its_pointer(
    loss: dict[str, Any], pointer: str, word: str
) -> None:
    (error,) = refused(THREE, 3, loss={"type": "CrossEntropyLoss"} | loss)
    assert error.pointer == pointer
    assert word in error.message


def test_balance_without_counts_asks_for_numbers() -> None:
    loss = {"type": "CrossEntropyLoss", "class_weights": "balanced"}
    (error,) = refused(NUMBER, 2, loss=loss, target_transform=[{"type": "Bin", "quantiles": 2}])
    assert (error.pointer, error.code) == ("/loss/class_weights", "no_counts")


def test_what_torch_has_and_no_spec_may_name_is_told_with_the_reason() -> None:
    for name, reason in FAMILY.absent.items():
        errors = refused(THREE, 3, loss={"type": name})
        assert errors[0].pointer == "/loss/type"
        assert reason in errors[0].message


def test_every_loss_of_torch_is_offered_or_left_out_with_a_reason() -> None:
    there = {name for name in dir(nn) if name.endswith(("Loss", "Loss2d"))}
    assert there == set(FAMILY.names) | (set(FAMILY.absent) & there)


@pytest.mark.parametrize(
    ("manifest", "outputs", "fields", "word"),
    [
        (THREE, 4, {}, "3 classes ends with [64, 3]"),
        (TWO, 2, {"loss": {"type": "BCEWithLogitsLoss"}}, "[64, 1], the score of the second"),
        (THREE, 1, {"loss": {"type": "BCEWithLogitsLoss"}}, "3 classes ends with [64, 3]"),
        (NUMBER, 2, {}, "ends with [64, 1]"),
        (NUMBER, 1, {"loss": {"type": "GaussianNLLLoss"}}, "a mean and a variance"),
        (
            table("bool", [(False, 50), (True, 50)], names=("u", "v")),
            3,
            {"target": ["u", "v"]},
            "2 labels ends with [64, 2]",
        ),
        (
            table("int64", [(-1, 50), (1, 50)]),
            1,
            {"loss": {"type": "CosineEmbeddingLoss"}},
            "takes 2 outputs of the net; it gives 1",
        ),
    ],
)
def test_an_output_that_does_not_fit_the_loss_is_told_what_does(
    manifest: Manifest, outputs: int, fields: dict[str, Any], word: str
) -> None:
    errors = refused(manifest, outputs, **fields)
    assert [error.pointer for error in errors] == ["/model/layers/0"]
    assert word in errors[0].message


def test_three_classes_by_a_binary_loss_need_one_hot_targets() -> None:
    spec = resolved(THREE, 3, loss={"type": "BCEWithLogitsLoss"}, target_transform=[{"type": "OneHot"}])
    assert spec["task"] == "classification"


@pytest.mark.parametrize(
    ("loss", "outputs", "layer"),
    [("NLLLoss", 3, {"type": "LogSoftmax", "dim": 1}), ("BCELoss", 1, {"type": "Sigmoid"})],
)
def test_a_loss_of_probabilities_behind_a_linear_is_warned_of(
    loss: str, outputs: int, layer: dict[str, Any]
) -> None:
    manifest = THREE if outputs == 3 else TWO
    raw = {"name": "m", "dataset": "d", "inputs": ["x"], "loss": {"type": loss}}
    source, last = Source("d@1", manifest), {"type": "Linear", "out_features": outputs}
    (warning,) = check(raw | {"model": net(last)}, source).plan.warnings
    assert warning.startswith("/model/layers/0")
    assert layer["type"] in warning
    assert check(raw | {"model": net(last, layer)}, source).plan.warnings == []


SCORES = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])


@pytest.mark.parametrize(
    ("readout", "outputs", "expected"),
    [
        (Readout("softmax"), SCORES, SCORES.exp() / SCORES.exp().sum(dim=1, keepdim=True)),
        (Readout("sigmoid"), SCORES, 1 / (1 + (-SCORES).exp())),
        (Readout("exp"), SCORES, SCORES.exp()),
        (Readout("none"), SCORES, SCORES),
        (Readout("mean"), torch.tensor([[1.0, 2.0, 9.0, 9.0]]), torch.tensor([[1.0, 2.0]])),
        (
            Readout("sigmoid", is_binary=True),
            torch.tensor([[0.0], [np.log(3.0)]]),
            torch.tensor([[0.5, 0.5], [0.25, 0.75]]),
        ),
        (
            Readout("cosine"),
            (torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [3.0, 3.0]])),
            torch.tensor([0.0, 1.0]),
        ),
        (Readout("difference"), (torch.tensor([[3.0]]), torch.tensor([[1.0]])), torch.tensor([2.0])),
        (
            Readout("nearer", p=1.0),
            (torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 4.0]])),
            torch.tensor([5.0]),
        ),
    ],
)
def test_an_answer_undoes_what_the_loss_applies_itself(readout: Readout, outputs: Any, expected: Any) -> None:
    torch.testing.assert_close(read_out(readout, outputs), expected, rtol=1e-5, atol=1e-5)
