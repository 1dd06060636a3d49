"""The predictor against a torch forward written by hand, for every kind of row that a model takes."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from core.data.instances import BadInstance
from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import Imputed, ImputedText, Spread, SpreadFeature, Standardized
from core.nets import artifacts
from core.nets.artifacts import Golden, VersionManifest
from core.nets.transforms import resolve
from core.predict import MAX_FORWARD_ROWS, Predictor
from modelyard.specs import Prediction, Signature
from tests.make_data import encode

# N instances, C classes

CLASSES = ["cat", "dog", "eel", "fox"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequential", "layers": list(layers)}


def manifest(**fields: Any) -> VersionManifest:
    defaults: dict[str, Any] = {
        "task": "classification",
        "kind": Kind.ARRAYS,
        "row_shape": [3],
        "classes": CLASSES,
        "transforms": [],
        "prepare": [],
        "signature": Signature([], []),
        "golden": [],
        "tolerance": 1e-4,
        "raw_shape": [3],
        "raw_dtype": "float32",
    }
    return VersionManifest(**(defaults | fields))


def images_manifest(channels: int = 3) -> VersionManifest:
    normalize = {"type": "Normalize", "mean": MEAN[:channels], "std": STD[:channels]}
    return manifest(
        kind=Kind.IMAGES,
        model=sequential({"type": "Flatten"}, linear(channels * 6 * 5, 4)),
        row_shape=[channels, 6, 5],
        transforms=resolve([{"type": "Resize", "size": [6, 5]}, normalize]),
        image_mode="L" if channels == 1 else "RGB",
        raw_shape=None,
        raw_dtype=None,
    )


def images_net(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 6 * 5, 4))


def picture(seed: int, channels: int = 3) -> np.ndarray[Any, Any]:
    """[C, 9, 8] of pixels."""
    return np.random.default_rng(seed).integers(0, 256, (channels, 9, 8), dtype=np.uint8)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    return encode(Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def image_scores(net: nn.Module, pixels: np.ndarray[Any, Any]) -> Tensor:
    """[C] by hand: resize, scale to 0..1, normalise, forward, softmax."""
    resized = functional.resize(torch.from_numpy(pixels), [6, 5]).float() / 255
    mean, std = (torch.tensor(values[: len(pixels)])[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        scores: Tensor = net(((resized - mean) / std)[None]).softmax(dim=1)[0]
    return scores


def loaded(tmp_path: Path, described: VersionManifest, net: nn.Module) -> Predictor:
    """From the two files, as the service loads them."""
    artifacts.write_manifest(described, tmp_path / "manifest.json")
    artifacts.save(artifacts.plain_state_dict(net), tmp_path / "weights.pt")
    return Predictor.load(tmp_path / "manifest.json", tmp_path / "weights.pt")


def assert_scores(prediction: Prediction, expected_C: Tensor) -> None:
    """A prediction with every class in `top`."""
    assert isinstance(prediction.top, list)
    given = {scored.index: scored.score for scored in prediction.top}
    assert [given[index] for index in range(len(expected_C))] == pytest.approx(expected_C.tolist(), abs=1e-6)
    assert prediction.index == expected_C.argmax().item()
    assert prediction.label == CLASSES[prediction.index]
    assert prediction.score == prediction.top[0].score == max(given.values())


def is_refused(prediction: Prediction) -> bool:
    fields = msgspec.to_builtins(prediction)
    return list(fields) == ["error"] and fields["error"]["status"] == 422


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_answered_alike_as_chw_as_hwc_and_as_a_png_file(channels: int, tmp_path: Path) -> None:
    net = images_net(channels)
    predictor = loaded(tmp_path, images_manifest(channels), net)
    pixels = picture(4, channels)
    expected = image_scores(net, pixels)
    answers = predictor.predict([pixels.tolist(), pixels.transpose(1, 2, 0).tolist()], top_k=4)
    for answer in [*answers, predictor.predict([png(pixels)], top_k=4)[0]]:
        assert_scores(answer, expected)


def test_a_grey_image_may_be_rows_of_pixels(tmp_path: Path) -> None:
    net = images_net(1)
    predictor = loaded(tmp_path, images_manifest(1), net)
    (answer,) = predictor.predict([picture(4, 1)[0].tolist()], top_k=4)
    assert_scores(answer, image_scores(net, picture(4, 1)))


def test_images_of_many_sizes_are_answered_together(tmp_path: Path) -> None:
    net = images_net()
    predictor = loaded(tmp_path, images_manifest(), net)
    small, large = picture(1)[:, :4, :4], picture(2)
    for pixels, answer in zip(
        [small, large], predictor.predict([small.tolist(), large.tolist()], 4), strict=True
    ):
        assert_scores(answer, image_scores(net, np.ascontiguousarray(pixels)))


def test_without_a_resize_only_the_size_of_the_training_is_taken(tmp_path: Path) -> None:
    described = msgspec.structs.replace(images_manifest(), transforms=resolve([]))
    predictor = loaded(tmp_path, described, images_net())
    good, bad = predictor.predict([picture(1)[:, :6, :5].tolist(), picture(1).tolist()])
    assert isinstance(good.label, str)
    assert is_refused(bad)
    assert "[3, 6, 5]" in str(msgspec.to_builtins(bad)["error"]["detail"])


ROWS = [
    {"age": 20.0, "city": "rome"},
    {"age": None, "city": "bern"},
    {"city": "oslo", "age": 61},
    {"age": 44.5, "city": "a city that nobody trained on"},
]
PREPARE = [
    FittedColumn("age", "number", [Imputed([40.0]), Standardized([38.0], [12.5])]),
    FittedColumn(
        "city", "string", [ImputedText("rome"), Spread([SpreadFeature(["bern", "oslo", "rome"], 3)])]
    ),
]
FEATURES = [
    [(20 - 38) / 12.5, 0, 0, 1],
    [(40 - 38) / 12.5, 1, 0, 0],
    [(61 - 38) / 12.5, 0, 1, 0],
    [(44.5 - 38) / 12.5, 0, 0, 0],
]


def test_rows_of_a_table_go_through_the_numbers_stored_with_the_version(tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = nn.Linear(4, 4)
    described = manifest(kind=Kind.TABLE, model=linear(4, 4), row_shape=[4], prepare=PREPARE)
    answers = loaded(tmp_path, described, net).predict(ROWS, top_k=4)
    expected = net(torch.tensor(FEATURES)).softmax(dim=1).detach()
    for answer, scores in zip(answers, expected, strict=True):
        assert_scores(answer, scores)


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1.0), ("float64", 1.0), ("int64", 100.0)])
def test_arrays_go_to_the_net_as_float32(dtype: str, scale: float, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = nn.Linear(3, 4)
    values = (np.random.default_rng(0).normal(size=(5, 3)) * scale).astype(dtype)
    predictor = loaded(tmp_path, manifest(model=linear(3, 4), raw_dtype=dtype), net)
    expected = net(torch.from_numpy(values.astype(np.float32))).softmax(dim=1).detach()
    for answer, scores in zip(predictor.predict(values.tolist(), top_k=4), expected, strict=True):
        assert_scores(answer, scores)


def test_arrays_of_true_and_false_are_ones_and_zeros(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = nn.Linear(3, 4)
    (answer,) = loaded(tmp_path, manifest(model=linear(3, 4), raw_dtype="bool"), net).predict(
        [[True, False, True]], top_k=4
    )
    assert_scores(answer, net(torch.tensor([[1.0, 0.0, 1.0]])).softmax(dim=1)[0].detach())


def test_arrays_of_bytes_are_grey_images(tmp_path: Path) -> None:
    net = images_net(1)
    described = msgspec.structs.replace(
        images_manifest(1), kind=Kind.ARRAYS, image_mode=None, raw_shape=[9, 8], raw_dtype="uint8"
    )
    (answer,) = loaded(tmp_path, described, net).predict([picture(4, 1)[0].tolist()], top_k=4)
    assert_scores(answer, image_scores(net, picture(4, 1)))


def test_arrays_of_bytes_may_have_their_channels_last(tmp_path: Path) -> None:
    net = images_net(3)
    described = msgspec.structs.replace(
        images_manifest(3), kind=Kind.ARRAYS, image_mode=None, raw_shape=[9, 8, 3], raw_dtype="uint8"
    )
    instance = picture(4, 3).transpose(1, 2, 0).tolist()
    (answer,) = loaded(tmp_path, described, net).predict([instance], top_k=4)
    assert_scores(answer, image_scores(net, picture(4, 3)))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_answers_the_nets_values(outputs: int, tmp_path: Path) -> None:
    torch.manual_seed(4)
    net = nn.Linear(3, outputs)
    described = manifest(model=linear(3, outputs), task="regression", classes=None)
    values = [[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]]
    answers = loaded(tmp_path, described, net).predict(values)
    for answer, expected in zip(answers, net(torch.tensor(values)).tolist(), strict=True):
        assert answer.value == pytest.approx(expected[0] if outputs == 1 else expected, rel=1e-6)
        assert list(msgspec.to_builtins(answer)) == ["value"]


def digits(tmp_path: Path) -> Predictor:
    """A net with everything that behaves otherwise in training: batch norm and dropout."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(32, 3))
    model = sequential(
        linear(3, 16),
        {"type": "BatchNorm1d", "num_features": 16},
        {"type": "ReLU"},
        {"type": "Dropout", "p": 0.5},
        linear(16, 4),
    )
    return loaded(tmp_path, manifest(model=model), net)


def test_n_in_is_n_out_in_order_and_a_bad_row_fails_alone(tmp_path: Path) -> None:
    predictor = digits(tmp_path)
    rows: list[Any] = np.random.default_rng(1).normal(size=(7, 3)).tolist()
    expected = predictor.predict(rows)
    assert len({answer.score for answer in expected}) == 7
    bad = [[1.0, 2.0], "no row", None, [1.0, 2.0, "x"], [1e300, 0.0, 0.0]]
    mixed = [*rows[:3], *bad, *rows[3:]]
    answers = predictor.predict(mixed)
    assert len(answers) == len(mixed)
    assert all(is_refused(answer) for answer in answers[3:8])
    for got, wanted in zip([*answers[:3], *answers[8:]], expected, strict=True):
        assert got.label == wanted.label
        assert got.score == pytest.approx(wanted.score, abs=1e-5)


def test_a_row_alone_is_answered_as_in_a_batch(tmp_path: Path) -> None:
    predictor = digits(tmp_path)
    rows = np.random.default_rng(1).normal(size=(MAX_FORWARD_ROWS + 9, 3)).tolist()
    together = predictor.predict(rows, top_k=4)
    assert len(together) == len(rows)
    for row, answer in [*zip(rows, together, strict=True)][::20]:
        (alone,) = predictor.predict([row], top_k=4)
        assert alone.label == answer.label
        scores = [[scored.score for scored in each.top or []] for each in (alone, answer)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_the_scores_of_a_row_sum_to_one_and_stand_in_order(tmp_path: Path) -> None:
    predictor = digits(tmp_path)
    for k in (1, 2, 4, 1000):
        (answer,) = predictor.predict([[0.1, 0.2, 0.3]], top_k=k)
        assert isinstance(answer.top, list)
        scores = [scored.score for scored in answer.top]
        assert len(scores) == min(k, 4)
        assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0, abs=1e-6)


def test_an_answer_that_is_no_number_is_an_error_in_its_place(tmp_path: Path) -> None:
    net = nn.Linear(3, 1)
    nn.init.constant_(net.weight, 1e30)
    described = manifest(model=linear(3, 1), task="regression", classes=None)
    predictor = loaded(tmp_path, described, net)
    small, large = predictor.predict([[0.0, 0.0, 0.0], [1e20, 1e20, 0.0]])
    assert isinstance(small.value, float)
    assert msgspec.to_builtins(large)["error"]["code"] == "non_finite_output"
    json.loads(msgspec.json.encode([small, large]), parse_constant=pytest.fail)
    classifier = nn.Linear(3, 4)
    nn.init.constant_(classifier.weight, float("nan"))
    (answer,) = loaded(tmp_path, manifest(model=linear(3, 4)), classifier).predict([[1.0, 2.0, 3.0]])
    assert is_refused(answer)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadInstance):
        loaded(tmp_path, images_manifest(), images_net()).image_row(data)


def test_an_image_for_a_model_of_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInstance, match="send JSON instances"):
        digits(tmp_path).image_row(png(picture(1)))


def golden_images(net: nn.Module) -> VersionManifest:
    """PNGs in base64 with what the net answers by hand."""
    pictures = [picture(seed) for seed in range(5)]
    golden = [
        Golden(base64.b64encode(png(pixels)).decode(), image_scores(net, pixels).tolist())
        for pixels in pictures
    ]
    return msgspec.structs.replace(images_manifest(), golden=golden)


def test_the_golden_samples_replay_to_what_the_trained_net_answered(tmp_path: Path) -> None:
    net = images_net()
    assert loaded(tmp_path, golden_images(net), net).replay() < 1e-6


def test_one_changed_weight_shows_in_the_replay(tmp_path: Path) -> None:
    net = images_net()
    described = golden_images(net)
    linear_layer = net[1]
    assert isinstance(linear_layer, nn.Linear)
    with torch.no_grad():
        linear_layer.weight[2, 7] += 1.0
    assert loaded(tmp_path, described, net).replay() > described.tolerance


@pytest.mark.parametrize("instance", ["AAAA", base64.b64encode(b"no image").decode()])
def test_a_golden_sample_that_cannot_be_read_is_infinitely_far(instance: str, tmp_path: Path) -> None:
    described = msgspec.structs.replace(images_manifest(), golden=[Golden(instance, [0.25] * 4)])
    assert loaded(tmp_path, described, images_net()).replay() == float("inf")


def test_a_net_that_answers_nan_is_infinitely_far_from_its_golden_samples(tmp_path: Path) -> None:
    net = nn.Linear(3, 4)
    nn.init.constant_(net.weight, float("nan"))
    described = manifest(model=linear(3, 4), golden=[Golden([1.0, 2.0, 3.0], [0.25] * 4)])
    assert loaded(tmp_path, described, net).replay() == float("inf")


def test_the_replay_of_a_regression_is_relative_to_its_values(tmp_path: Path) -> None:
    net = nn.Linear(3, 1)
    nn.init.constant_(net.weight, 1e6)
    nn.init.constant_(net.bias, 0.0)
    golden = [Golden([1.0, 1.0, 1.0], [3e6 * 1.001])]
    described = manifest(model=linear(3, 1), task="regression", classes=None, golden=golden)
    assert loaded(tmp_path, described, net).replay() == pytest.approx(0.001, rel=1e-2)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Linear(3, 5), "size mismatch for weight"),
        (nn.Linear(3, 4, bias=False), "Missing key"),
        (nn.Sequential(nn.Linear(3, 4)), "Unexpected key"),
    ],
    ids=["another shape", "a missing tensor", "other names"],
)
def test_weights_that_are_not_the_nets_are_refused(net: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=words):
        loaded(tmp_path, manifest(model=linear(3, 4)), net)


def test_loading_draws_no_random_numbers_and_leaves_the_net_in_eval(tmp_path: Path) -> None:
    predictor = digits(tmp_path)
    state = torch.get_rng_state()
    again = Predictor.load(tmp_path / "manifest.json", tmp_path / "weights.pt")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in again.net.modules())
    assert predictor.predict([[1.0, 2.0, 3.0]]) == again.predict([[1.0, 2.0, 3.0]])


def test_the_size_of_a_model_is_that_of_its_weights(tmp_path: Path) -> None:
    # 3*16+16 and 16*4+4 of Linear; 4*16 of BatchNorm; float32 each; the counter of batches is one int64.
    assert digits(tmp_path).size_bytes == 4 * (64 + 68 + 64) + 8
