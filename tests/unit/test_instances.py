"""What a client sends as one instance, read as the dataset would hold it."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from core.data.instances import BadInstance, array_from_json, pixels_from_json


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_as_chw_is_taken_as_it_is(channels: int) -> None:
    image = pixels(channels, 5, 4)
    given = pixels_from_json(image.tolist(), channels)
    assert given.dtype == np.uint8
    assert np.array_equal(given, image)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_as_hwc_is_turned_to_chw(channels: int) -> None:
    image = pixels(channels, 5, 4)
    given = pixels_from_json(image.transpose(1, 2, 0).tolist(), channels)
    assert np.array_equal(given, image)


def test_a_grey_image_may_leave_its_channel_out() -> None:
    image = pixels(5, 4)
    assert np.array_equal(pixels_from_json(image.tolist(), 1), image[None])


def test_where_both_readings_fit_an_image_is_chw() -> None:
    image = pixels(3, 5, 3)
    assert np.array_equal(pixels_from_json(image.tolist(), 3), image)


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ([[0, 256]], "0 to 255, got 0 to 256"),
        ([[-1, 3]], "got -1 to 3"),
        ([[0.5, 1.0]], "got numbers with a fraction"),
        ([[True, False]], "got true or false"),
        ([["1", "2"]], "got strings"),
        ([[1, 2], [3]], "equal lengths"),
        ([[10**30]], "different kinds"),
        ([], "integers from 0 to 255"),
        ([[[]]], "integers from 0 to 255"),
        (7, "as CHW or HWC, got shape []"),
        ([[[1, 2], [3, 4]], [[1, 2], [3, 4]]], "got shape [2, 2, 2]"),
        (None, "different kinds"),
        ({"b64": "AA=="}, "different kinds"),
        ("AA==", "got strings"),
    ],
)
def test_what_is_no_grey_image_is_refused_with_what_came(instance: object, words: str) -> None:
    with pytest.raises(BadInstance) as caught:
        pixels_from_json(instance, 1)
    assert words in caught.value.detail


def test_one_long_text_among_many_values_costs_no_memory_for_each_of_them() -> None:
    tracemalloc.start()
    with pytest.raises(BadInstance, match="strings"):
        pixels_from_json([["x" * 10_000, *([""] * 10_000)]], 1)  # 400 MB as one numpy array of text
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_lists_nest_no_deeper_than_an_array_can() -> None:
    instance: object = 1
    for _ in range(900):
        instance = [instance]
    with pytest.raises(BadInstance, match="32 deep"):
        array_from_json(instance, [1], "float32")


def test_a_matrix_is_no_colour_image() -> None:
    with pytest.raises(BadInstance, match="3 channels"):
        pixels_from_json(pixels(5, 4).tolist(), 3)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", [[0.1, -2.0], [3.5, 4.0]]),
        ("float64", [[1, 2], [3, 4]]),
        ("int64", [[2**62 + 1, 0], [0, -(2**62) - 1]]),
        ("uint8", [[0, 255], [1, 2]]),
        ("bool", [[True, False], [False, True]]),
    ],
)
def test_an_array_gets_the_dtype_of_the_dataset_and_keeps_its_values(dtype: str, values: list[Any]) -> None:
    given = array_from_json(values, [2, 2], dtype)
    assert given.dtype == np.dtype(dtype)
    assert np.array_equal(given, np.array(values, dtype=dtype))


@pytest.mark.parametrize(
    ("instance", "dtype", "words"),
    [
        ([1, 2], "float32", "expected an array of shape [3], got [2]"),
        ([[1, 2, 3]], "float32", "expected an array of shape [3], got [1, 3]"),
        ([1.5, 2, 3], "int64", "expected int64, got numbers with a fraction"),
        ([0, 1, 300], "uint8", "0 to 255"),
        ([0, 1, 200], "int8", "-128 to 127"),
        ([0, 1, 1], "bool", "expected true or false, got 3 integers"),
        ([True, False, True], "float32", "expected numbers, got true or false"),
        ([1e300, 0, 0], "float32", "finite float32"),
        ([float("nan"), 0, 0], "float64", "finite float64"),
        (["a", "b", "c"], "float32", "got strings"),
    ],
)
def test_an_array_that_the_dataset_could_not_hold_is_refused(
    instance: object, dtype: str, words: str
) -> None:
    with pytest.raises(BadInstance) as caught:
        array_from_json(instance, [3], dtype)
    assert words in caught.value.detail
