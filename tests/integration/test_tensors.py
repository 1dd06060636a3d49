"""Named tensors are the same rows as JSON instances, and answer the same numbers."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from core.data.instances import BadInstance
from core.errors import Invalid
from core.nets.transforms import Pipeline, resolve
from core.predict import Predictor
from core.tensors import MAX_ROWS, named_outputs, rows_of
from modelyard.specs import Prediction
from tests import described
from tests.described import Described


def predictor_of(model: Described) -> Predictor:
    manifest, net = model
    return Predictor.of(manifest, dict(net.state_dict()))


def objects(*values: Any) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def outputs_of(predictor: Predictor, **tensors: np.ndarray) -> Tensor:
    return predictor.outputs(rows_of(predictor, tensors))


def scores(prediction: Prediction) -> list[float]:
    assert prediction.top, prediction
    return [one.score for one in sorted(prediction.top, key=lambda one: one.index)]


CASES: dict[str, tuple[Any, dict[str, np.ndarray], list[Any]]] = {
    "images": (described.images, {"input": described.pictures(3)}, described.pictures(3).tolist()),
    "table": (
        described.table,
        {
            "age": np.array([20.0, np.nan, 61.0]),
            "city": objects(b"rome", None, "Žilina".encode()),
            "vip": np.array([True, False, True]),
        },
        [
            {"age": 20.0, "city": "rome", "vip": True},
            {"vip": False},
            {"age": 61, "city": "Žilina", "vip": True},
        ],
    ),
    "text": (
        described.text,
        {"text": objects(b"a", b"long enough")},
        [{"text": "a"}, {"text": "long enough"}],
    ),
    "arrays": (described.arrays, {"input": np.eye(3, dtype=np.float32)}, np.eye(3).tolist()),
    "integers": (
        lambda: described.arrays("int64", "INT64"),
        {"input": np.array([[1, 2, 3]])},
        [[1, 2, 3]],
    ),
    "bools": (
        lambda: described.arrays("bool", "BOOL"),
        {"input": np.array([[True, False, True]])},
        [[True, False, True]],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_tensors_answer_the_numbers_of_the_instances(name: str) -> None:
    describe, tensors, instances = CASES[name]
    predictor = predictor_of(describe())
    named = named_outputs(predictor.manifest, outputs_of(predictor, **tensors))
    predictions = predictor.predict(instances, top_k=4)
    assert len(predictions) == len(named["scores"])
    assert named["scores"].dtype == np.float32
    for row, label, prediction in zip(named["scores"], named["label"], predictions, strict=True):
        assert row.tolist() == pytest.approx(scores(prediction), abs=1e-6)
        assert label.decode() == prediction.label


def test_a_regression_answers_its_values_by_name() -> None:
    predictor = predictor_of(described.regressor())
    rows = np.eye(3, dtype=np.float32)
    named = named_outputs(predictor.manifest, outputs_of(predictor, input=rows))
    assert named["value"].tolist() == [one.value for one in predictor.predict(rows.tolist())]


def test_images_of_any_size_may_be_files_of_each_its_own() -> None:
    predictor = predictor_of(described.images())
    files = [described.encoded(described.pictures(1, *size)[0]) for size in ((4, 5), (20, 30))]
    together = outputs_of(predictor, input=objects(*files))
    alone = [predictor.predict([file], top_k=4)[0] for file in files]
    for row, prediction in zip(together.tolist(), alone, strict=True):
        assert row == pytest.approx(scores(prediction), abs=1e-6)


@pytest.mark.parametrize(
    ("describe", "tensors", "said"),
    [
        (described.images, {"input": described.pictures(2) * 1.5}, "0 to 255"),
        (described.images, {"input": described.pictures(2)[:, :, :0]}, "3 channels"),
        (described.images, {"input": described.pictures(2) > 9}, "true or false"),
        (described.images, {"input": objects(described.encoded(described.pictures(1)[0]), None)}, "row 1"),
        (described.table, {"vip": np.array([True]), "age": np.array([np.inf])}, "row 0: 'age'"),
        (described.table, {"vip": np.array([True]), "age": objects(b"1")}, "'age': expected numbers"),
        (described.table, {"vip": np.array([True]), "city": np.array([1.0])}, "'city': expected strings"),
        (described.table, {"vip": np.ones((2, 2), dtype=bool)}, r"shape \[-1\]"),
        (described.text, {"text": objects(b"ok", None)}, "row 1: 'text' is missing"),
        (described.arrays, {"input": np.full((1, 3), np.nan)}, "finite"),
        (described.arrays, {"input": np.zeros((MAX_ROWS + 1, 3))}, "at most"),
        (described.arrays, {}, "did not come"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_in_words(
    describe: Any, tensors: dict[str, np.ndarray], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        rows_of(predictor_of(describe()), tensors)


def test_an_answer_that_is_no_number_names_its_row() -> None:
    predictor = predictor_of(described.regressor())
    large = np.array([[0, 0, 0], [3e38, 3e38, 3e38]], dtype=np.float32)
    outputs = outputs_of(predictor, input=large)
    outputs[1] = float("inf")
    with pytest.raises(BadInstance, match="row 1: the net's answer is not finite"):
        named_outputs(predictor.manifest, outputs)


@pytest.mark.parametrize(
    ("transforms", "takes_any"),
    [
        ([], False),
        ([{"type": "Resize", "size": [6, 5]}], True),
        ([{"type": "Resize", "size": [8]}], False),  # the shorter side alone
        ([{"type": "Resize", "size": [8]}, {"type": "CenterCrop", "size": [8, 8]}], True),
    ],
)
def test_images_of_any_size_are_taken_where_the_transforms_bring_them_to_one(
    transforms: list[dict[str, Any]], takes_any: bool
) -> None:
    assert Pipeline.from_spec(resolve(transforms)).takes_any_size(3) is takes_any
