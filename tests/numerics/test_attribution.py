"""Explanations against formulas: of a linear net they are its weights; integrated gradients add up."""

import base64
import io
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from core.attribution import explain
from core.data.instances import BadInstance
from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import Imputed, Spread, SpreadFeature, Standardized
from core.errors import Invalid
from core.nets.artifacts import VersionManifest
from core.nets.readout import Readout
from core.nets.transforms import resolve
from core.predict import Predictor
from modelyard.specs import Method, Signature

# C channels, H height, W width, K classes

METHODS: list[Method] = ["saliency", "integrated_gradients"]
MEAN, STD = [0.5], [0.25]
PREPARE = [
    FittedColumn("age", "number", [Imputed([40.0]), Standardized([38.0], [12.5])]),
    FittedColumn("city", "string", [Spread([SpreadFeature(["bern", "oslo", "rome"], 3)])]),
]


def linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def predictor(net: nn.Module, model: dict[str, Any], **fields: Any) -> Predictor:
    defaults: dict[str, Any] = {
        "task": "classification",
        "kind": Kind.TABLE,
        "row_shape": [4],
        "classes": ["cat", "dog", "eel"],
        "transforms": [],
        "prepare": PREPARE,
        "signature": Signature([], []),
        "golden": [],
        "tolerance": 1e-4,
    }
    return Predictor.of(VersionManifest(model=model, **(defaults | fields)), net.state_dict())


def pictures(net: nn.Module, layers: list[dict[str, Any]]) -> Predictor:
    """Of grey images of 4 x 3, normalised."""
    transforms = resolve([{"type": "Normalize", "mean": MEAN, "std": STD}])
    return predictor(
        net,
        {"type": "Sequential", "layers": layers},
        kind=Kind.IMAGES,
        row_shape=[1, 4, 3],
        transforms=transforms,
        prepare=[],
        image_mode="L",
    )


def shown(heat_map: object) -> np.ndarray[Any, Any]:
    assert isinstance(heat_map, str)
    return np.array(Image.open(io.BytesIO(base64.b64decode(heat_map))))


def ramp(share_HW: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Black, red, yellow, white in three thirds, each from 0 to 255."""
    thirds = [np.interp(share_HW, [third / 3, (third + 1) / 3], [0, 255]) for third in range(3)]
    return np.stack(thirds, axis=-1)


def test_the_heat_map_of_a_linear_net_is_its_weights() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    weight_HW = net[1].weight[2].detach().reshape(4, 3).double().numpy()  # type: ignore[operator]
    pixels_HW = np.random.default_rng(3).integers(0, 256, (4, 3))
    asked = pictures(net, [{"type": "Flatten"}, linear(12, 3)])

    saliency = explain(asked, pixels_HW.tolist(), "saliency", 2)
    integrated = explain(asked, pixels_HW.tolist(), "integrated_gradients", 2)

    expected_HW = np.abs(weight_HW)
    assert np.abs(shown(saliency.heat_map) - ramp(expected_HW / expected_HW.max())).max() <= 1
    # From black: the pixel's share of 255, in units of the standard deviation; the mean cancels.
    expected_HW = np.abs(weight_HW * (pixels_HW / 255) / STD[0])
    assert np.abs(shown(integrated.heat_map) - ramp(expected_HW / expected_HW.max())).max() <= 1
    assert (saliency.method, saliency.index) == ("saliency", 2)


def test_a_pixel_that_the_net_does_not_look_at_is_black() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        net[1].weight[:, 5] = 0  # type: ignore[index]
    asked = pictures(net, [{"type": "Flatten"}, linear(12, 3)])
    for method in METHODS:
        picture = shown(explain(asked, [[255] * 3] * 4, method, 0).heat_map)
        assert picture.shape == (4, 3, 3)
        assert picture[1, 2].tolist() == [0, 0, 0]
        assert picture.max() == 255


ROW = {"age": 63.0, "city": "oslo"}
FEATURES = torch.tensor([[(63 - 38) / 12.5, 0.0, 1.0, 0.0]])


def test_the_columns_of_a_linear_net_have_its_weights_times_their_features() -> None:
    torch.manual_seed(1)
    net = nn.Linear(4, 3)
    asked = predictor(net, linear(4, 3))
    weight = net.weight[1].tolist()
    integrated = explain(asked, ROW, "integrated_gradients", 1).columns
    assert integrated == pytest.approx({"age": weight[0] * 2.0, "city": weight[2]}, rel=1e-5)
    gradients = explain(asked, ROW, "saliency", 1).columns
    assert gradients == pytest.approx({"age": abs(weight[0]), "city": max(map(abs, weight[1:]))}, rel=1e-5)


def test_integrated_gradients_add_up_to_the_difference_from_the_baseline() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    model = {"type": "Sequential", "layers": [linear(4, 16), {"type": "Tanh"}, linear(16, 3)]}
    columns = explain(predictor(net, model), ROW, "integrated_gradients", 2).columns
    assert isinstance(columns, dict)
    with torch.no_grad():
        difference = (net(FEATURES) - net(torch.zeros(1, 4)))[0, 2].item()
    assert sum(columns.values()) == pytest.approx(difference, rel=1e-3)


def test_the_two_classes_of_one_output_are_each_others_opposite() -> None:
    torch.manual_seed(3)
    net = nn.Linear(4, 1)
    asked = predictor(net, linear(4, 1), classes=["no", "yes"], readout=Readout("sigmoid", is_binary=True))
    no, yes = (explain(asked, ROW, "integrated_gradients", index).columns for index in (0, 1))
    assert isinstance(no, dict)
    assert isinstance(yes, dict)
    assert yes == pytest.approx({name: -value for name, value in no.items()})
    assert yes["age"] == pytest.approx(2 * net.weight[0, 0].item(), rel=1e-5)


def test_a_regression_is_explained_without_an_index() -> None:
    torch.manual_seed(4)
    net = nn.Linear(4, 1)
    asked = predictor(net, linear(4, 1), task="regression", classes=None)
    explanation = explain(asked, ROW, "integrated_gradients", None)
    assert explanation.index is msgspec.UNSET
    assert explanation.columns == pytest.approx(
        {"age": 2 * net.weight[0, 0].item(), "city": net.weight[0, 2].item()}, rel=1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_pixels_and_no_columns_is_not_explained(method: Method) -> None:
    arrays = predictor(nn.Linear(4, 3), linear(4, 3), kind=Kind.ARRAYS, raw_shape=[4], raw_dtype="float32")
    several = predictor(nn.Linear(4, 2), linear(4, 2), task="regression", classes=None)
    for asked, row, words in [
        (arrays, [1.0, 2.0, 3.0, 4.0], "neither pixels nor columns"),
        (several, ROW, "2 values a row"),
    ]:
        with pytest.raises(Invalid, match=words) as raised:
            explain(asked, row, method, None)
        assert raised.value.code == "not_explainable"


def test_a_row_that_cannot_be_read_is_not_explained() -> None:
    with pytest.raises(BadInstance):
        explain(predictor(nn.Linear(4, 3), linear(4, 3)), {"age": "x", "city": "oslo"}, "saliency", 0)
