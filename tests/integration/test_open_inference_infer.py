"""Inference in the Open Inference Protocol, by NVIDIA's client, sync and aio; numbers against plain torch."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from tritonclient.utils import InferenceServerException

from tests.described import CLASSES, encoded, pictures
from tests.triton import ROWS, Zoo, tensor, wanted

OBJECT = np.object_


def labels_of(scores: np.ndarray) -> list[bytes]:
    return [CLASSES[place].encode() for place in scores.argmax(axis=1)]


@pytest.mark.parametrize("is_binary_in", [True, False])
@pytest.mark.parametrize("is_binary_out", [True, False])
def test_tensors_go_in_and_come_out_as_binary_data_and_as_json(
    triton: Any, zoo: Zoo, is_binary_in: bool, is_binary_out: bool
) -> None:
    outputs = [wanted(name, binary_data=is_binary_out) for name in ("label", "scores")]
    result = triton.infer(
        "arrays", [tensor("input", ROWS, binary=is_binary_in)], outputs=outputs, request_id="r 7"
    )
    expected = zoo.scores("arrays", ROWS)
    np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)
    assert [np.asarray(one).item() for one in result.as_numpy("label").astype(bytes)] == labels_of(expected)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r 7", "arrays", "1")
    assert [output["name"] for output in response["outputs"]] == ["label", "scores"]
    assert all(("data" in output) is not is_binary_out for output in response["outputs"])


def test_without_outputs_all_come_in_binary(triton: Any, zoo: Zoo) -> None:
    result = triton.infer("regressor", [tensor("input", ROWS)])
    (output,) = result.get_response()["outputs"]
    assert (output["name"], output["shape"], output["parameters"]["binary_data_size"]) == (
        "value",
        [2, 2],
        16,
    )
    expected = zoo.nets["regressor"][0](torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(result.as_numpy("value"), expected, rtol=1e-6)


def test_one_request_mixes_json_and_binary_data(triton: Any, zoo: Zoo) -> None:
    inputs = [
        tensor("age", np.array([20.0, 61.0]), binary=False),
        tensor("city", np.array([b"rome", b"oslo"], dtype=OBJECT)),
        tensor("vip", np.array([True, False])),
    ]
    features = np.array([[(20 - 38) / 12.5, 0, 0, 1, 1], [(61 - 38) / 12.5, 0, 1, 0, 0]], dtype=np.float32)
    result = triton.infer("table", inputs, outputs=[wanted("scores", binary_data=False), wanted("label")])
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("table", features), atol=1e-6)


def test_nan_in_json_is_a_missing_number(triton: Any, zoo: Zoo) -> None:
    inputs = [
        tensor("age", np.array([np.nan]), binary=False),
        tensor("city", np.array(["bern"], dtype=OBJECT), binary=False),
        tensor("vip", np.array([True]), binary=False),
    ]
    features = np.array([[(40 - 38) / 12.5, 1, 0, 0, 1]], dtype=np.float32)
    result = triton.infer("table", inputs)
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("table", features), atol=1e-6)


def test_a_column_that_may_be_missing_may_be_left_out(triton: Any, zoo: Zoo) -> None:
    features = np.array([[(40 - 38) / 12.5, 0, 0, 1, 1]], dtype=np.float32)
    result = triton.infer("table", [tensor("vip", np.array([[True]]))])
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("table", features), atol=1e-6)
    with pytest.raises(InferenceServerException, match="vip did not come"):
        triton.infer("table", [tensor("age", np.array([1.0]))])


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_text_is_bytes_in_utf_8(triton: Any, zoo: Zoo, is_binary: bool) -> None:
    text = "žluť"
    row = np.array([[*(byte + 1 for byte in text.encode()), 0, 0]])
    result = triton.infer("text", [tensor("text", np.array([text.encode()], dtype=OBJECT), binary=is_binary)])
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("text", row), atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_image_files_are_answered_as_their_pixels(triton: Any, kind: str) -> None:
    pixels = pictures(3)
    files = np.array([encoded(one, kind, lossless=True) for one in pixels], dtype=OBJECT)
    from_files = triton.infer("images", [tensor("input", files)]).as_numpy("scores")
    from_pixels = triton.infer("images", [tensor("input", pixels)]).as_numpy("scores")
    from_floats = triton.infer("images", [tensor("input", pixels.astype(np.float32))]).as_numpy("scores")
    assert from_files.shape == (3, 4)
    np.testing.assert_array_equal(from_files, from_pixels)
    np.testing.assert_array_equal(from_floats, from_pixels)


def test_a_raw_jpeg_is_answered_as_v1_answers_it(triton: Any, zoo: Zoo) -> None:
    jpeg = encoded(pictures(1, 40, 30)[0], "JPEG")
    scores = triton.infer("images", [tensor("input", np.array([jpeg], dtype=OBJECT))]).as_numpy("scores")[0]
    reply = zoo.owner.client.post(
        "/v1/models/images/predict?top_k=4", content=jpeg, headers={"Content-Type": "image/jpeg"}
    )
    top = sorted(reply.json()["predictions"][0]["top"], key=lambda one: one["index"])
    assert [np.float32(one["score"]) for one in top] == scores.tolist()


def test_half_precision_goes_in(triton: Any, zoo: Zoo) -> None:
    halves = ROWS.astype(np.float16)  # holds these numbers exactly
    expected = zoo.scores("arrays", ROWS)
    for is_binary in (True, False):
        result = triton.infer("arrays", [tensor("input", halves, binary=is_binary)])
        np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)


def test_bfloat16_goes_in(triton: Any, zoo: Zoo) -> None:
    from ml_dtypes import bfloat16

    result = triton.infer("arrays", [tensor("input", ROWS.astype(bfloat16), "BF16")])
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("arrays", ROWS), atol=1e-6)


@pytest.mark.parametrize("is_binary", [True, False])
def test_no_rows_are_answered_by_no_rows(triton: Any, is_binary: bool) -> None:
    empty = np.empty((0, 3), dtype=np.float32)
    outputs = [wanted("scores", binary_data=is_binary), wanted("label", binary_data=is_binary)]
    result = triton.infer("arrays", [tensor("input", empty, binary=is_binary)], outputs=outputs)
    assert result.as_numpy("scores").shape == (0, 4)
    assert result.as_numpy("label").shape == (0,)


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_tensor_without_dimensions_is_read_and_refused_for_its_shape(triton: Any, is_binary: bool) -> None:
    with pytest.raises(InferenceServerException, match=r"expected the shape \[-1, 3\].*got \[\]"):
        triton.infer("arrays", [tensor("input", np.array(1.0, dtype=np.float32), binary=is_binary)])


@pytest.mark.parametrize("is_binary", [True, False])
def test_classification_names_the_greatest_k(triton: Any, zoo: Zoo, is_binary: bool) -> None:
    outputs = [wanted("scores", class_count=2, binary_data=is_binary)]
    result = triton.infer("arrays", [tensor("input", ROWS)], outputs=outputs)
    assert result.get_response()["outputs"][0]["datatype"] == "BYTES"
    named = result.as_numpy("scores")
    assert named.shape == (2, 2)
    for row, expected in zip(named, zoo.scores("arrays", ROWS), strict=True):
        for said, place in zip(row, np.argsort(-expected), strict=False):
            value, index, label = (said.decode() if isinstance(said, bytes) else str(said)).split(":")
            assert (int(index), label) == (place, CLASSES[place])
            assert float(value) == pytest.approx(float(expected[place]), abs=1e-6)


def test_classification_of_more_classes_than_there_are_gives_all(triton: Any) -> None:
    result = triton.infer("regressor", [tensor("input", ROWS)], outputs=[wanted("value", class_count=9)])
    assert result.as_numpy("value").shape == (2, 2)
    assert result.as_numpy("value")[0, 0].count(b":") == 1  # values have no labels


@pytest.mark.parametrize("reply", ["gzip", "deflate", None])
@pytest.mark.parametrize("request_in", ["gzip", "deflate", None])
def test_bodies_are_compressed_both_ways(
    triton: Any, zoo: Zoo, request_in: str | None, reply: str | None
) -> None:
    rows = np.repeat(ROWS, 200, axis=0)
    for is_binary in (True, False):
        result = triton.infer(
            "arrays",
            [tensor("input", rows, binary=is_binary)],
            outputs=[wanted("scores", binary_data=is_binary)],
            request_compression_algorithm=request_in,
            response_compression_algorithm=reply,
        )
        np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("arrays", rows), atol=1e-6)


@pytest.mark.parametrize(
    ("reference", "number"), [("", 1), ("production", 1), ("2", 2), ("latest", 2)], ids=lambda one: repr(one)
)
def test_an_alias_is_a_version_and_the_reply_says_its_number(
    triton: Any, zoo: Zoo, reference: str, number: int
) -> None:
    result = triton.infer("arrays", [tensor("input", ROWS)], model_version=reference)
    assert result.get_response()["model_version"] == str(number)
    expected = zoo.scores("arrays", ROWS, version=number)
    np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "inputs", "options", "status", "said"),
    [
        ("nobody", [("input", ROWS)], {}, 404, "no model"),
        ("arrays", [("input", ROWS)], {"model_version": "9"}, 404, "no version or alias"),
        ("arrays", [("input", ROWS[:, :2])], {}, 400, r"shape \[-1, 3\]"),
        ("arrays", [("input", ROWS[0])], {}, 400, r"shape \[-1, 3\]"),
        ("arrays", [("inptu", ROWS)], {}, 400, 'Did you mean "input"'),
        ("arrays", [], {}, 400, "the inputs input"),
        ("arrays", [("input", ROWS * np.nan)], {}, 400, "finite"),
        ("arrays", [("input", np.array([[b"a"] * 3], dtype=OBJECT))], {}, 400, "numbers"),
        ("images", [("input", np.array([b"no image"], dtype=OBJECT))], {}, 400, "row 0"),
        ("images", [("input", pictures(1) / 255)], {}, 400, "fraction"),
        ("images", [("input", pictures(1)[:, :1])], {}, 400, r"shape \[-1, 3, -1, -1\]"),
        ("table", [("vip", np.array([True])), ("age", np.ones(2))], {}, 400, "as many rows"),
        ("table", [("vip", np.array([1.0]))], {}, 400, "true or false"),
        ("text", [("text", np.array([b"\xff"], dtype=OBJECT))], {}, 400, "UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    triton: Any, model: str, inputs: list[Any], options: dict[str, Any], status: int, said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said) as caught:
        triton.infer(model, [tensor(name, values) for name, values in inputs], **options)
    assert str(caught.value)
    assert caught.value.status() == str(status)


def test_an_output_that_is_not_there_is_refused_with_the_names(triton: Any) -> None:
    with pytest.raises(InferenceServerException, match="scores, label"):
        triton.infer("arrays", [tensor("input", ROWS)], outputs=[wanted("logits")])
    with pytest.raises(InferenceServerException, match="strings"):
        triton.infer("arrays", [tensor("input", ROWS)], outputs=[wanted("label", class_count=1)])


def test_parameters_of_others_are_ignored(triton: Any) -> None:
    result = triton.infer(
        "arrays",
        [tensor("input", ROWS)],
        priority=3,
        sequence_id=5,
        parameters={"mine": "x"},
        timeout=60_000_000,
    )
    assert result.as_numpy("scores").shape == (2, 4)


def test_more_rows_than_one_forward_takes_are_answered_in_order(triton: Any, zoo: Zoo) -> None:
    rows = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    result = triton.infer("arrays", [tensor("input", rows)])
    np.testing.assert_allclose(result.as_numpy("scores"), zoo.scores("arrays", rows), atol=1e-6)


def test_sixty_four_at_once_are_each_answered_by_their_own(zoo: Zoo) -> None:
    from tritonclient.http import InferenceServerClient

    rows = np.random.default_rng(1).normal(size=(64, 1, 3)).astype(np.float32)
    headers = {"Authorization": f"Bearer {zoo.owner.key}"}
    with InferenceServerClient(zoo.address, concurrency=64) as client:
        under_way = [
            client.async_infer("arrays", [tensor("input", row)], headers=dict(headers)) for row in rows
        ]
        answers = [one.get_result().as_numpy("scores") for one in under_way]
    np.testing.assert_allclose(np.concatenate(answers), zoo.scores("arrays", rows[:, 0]), atol=1e-5)


async def test_sixty_four_at_once_in_aio_are_each_answered_by_their_own(zoo: Zoo) -> None:
    from tritonclient.http.aio import InferenceServerClient

    rows = np.random.default_rng(2).normal(size=(64, 1, 3)).astype(np.float32)
    headers = {"Authorization": f"Bearer {zoo.owner.key}"}
    async with InferenceServerClient(zoo.address) as client:
        results = await asyncio.gather(
            *(client.infer("arrays", [tensor("input", row)], headers=dict(headers)) for row in rows)
        )
    answers = [result.as_numpy("scores") for result in results]
    np.testing.assert_allclose(np.concatenate(answers), zoo.scores("arrays", rows[:, 0]), atol=1e-5)
