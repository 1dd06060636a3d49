"""A trained model answers: images, tables and arrays, over plain HTTP, and as weights in a plain script."""

import hashlib
import json
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from deploy.embed import RunningStack
from examples.digits.make_digits import pictures
from modelyard import Client, Job, errors
from modelyard.specs import ModelVersion, Prediction, PredictReply, Problem, ScoredLabel
from tests.make_data import csv_bytes, npz_bytes, zip_bytes

# B rows in the batch, F features, C classes, H height, W width

LAYERS: list[dict[str, Any]] = [
    {"type": "Conv2d", "out_channels": 8, "kernel_size": 3, "padding": 1},
    {"type": "BatchNorm2d"},
    {"type": "ReLU"},
    {"type": "MaxPool2d", "kernel_size": 2},
    {"type": "Flatten"},
    {"type": "Linear", "out_features": 10},
]


@dataclass(frozen=True)
class Digits:
    """Two versions of the model `digits`; `images_NHW` are the pixels of `pngs`, as they were uploaded."""

    jobs: list[Job]
    pngs: list[bytes]
    images_NHW: list[list[list[int]]]


@pytest.fixture(scope="module")
def digits(client: Client, digits_zip: Path) -> Digits:
    client.datasets.push("digits", digits_zip)
    jobs = []
    for seed in (1, 2):
        spec = job("digits", "digits", *LAYERS) | {"trainer": {"epochs": 3, "batch_size": 32, "seed": seed}}
        jobs.append(client.jobs.submit(spec).wait(timeout_s=100))
    pixels = np.rint(load_digits().images[::5] * (255 / 16)).astype(int)
    return Digits(jobs, [picture.png for picture in pictures("test")], pixels.tolist())


def job(name: str, dataset: str, *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    model = {"type": "Sequential", "layers": list(layers)}
    return {"name": name, "dataset": dataset, "model": model, **more}


def top_of(prediction: Prediction) -> list[ScoredLabel]:
    assert prediction.top, prediction
    return prediction.top


def error_of(prediction: Prediction) -> Problem:
    assert prediction.error, prediction
    return prediction.error


def scores_of(reply: PredictReply) -> np.ndarray:
    """[B, C], from predictions with all classes in `top`."""
    return np.array(
        [[one.score for one in sorted(top_of(row), key=lambda one: one.index)] for row in reply.predictions]
    )


def test_image_as_rows_as_channels_and_as_a_file_gets_one_answer(client: Client, digits: Digits) -> None:
    image_HW = digits.images_NHW[0]
    image_HWC = [[[pixel] for pixel in row] for row in image_HW]
    as_rows, as_channels, channels_last = client.models.predict(
        "digits@1", [image_HW, [image_HW], image_HWC]
    ).predictions
    as_file = client.models.predict_image("digits@1", digits.pngs[0]).predictions[0]

    assert as_rows == as_channels == channels_last
    assert (as_file.label, as_file.index) == (as_rows.label, as_rows.index)
    assert as_file.score == pytest.approx(as_rows.score, abs=1e-5)


def test_png_posted_by_urllib_is_answered_in_the_words_of_the_api(
    stack: RunningStack, digits: Digits
) -> None:
    right = 0
    for png, truth in zip(digits.pngs[:20], load_digits().target[::5], strict=False):
        request = urllib.request.Request(
            f"{stack.url}/v1/models/digits/predict?top_k=3",
            data=png,
            headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "image/png"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer = json.load(reply)
        (prediction,) = answer["predictions"]
        assert answer.keys() == {"model", "version", "predictions"}
        assert (answer["model"], answer["version"]) == ("digits", 2)
        assert prediction.keys() == {"label", "index", "score", "top"}
        assert len(prediction["top"]) == 3
        right += prediction["label"] == str(truth)

    assert right >= 16


def test_top_k_lists_the_likeliest_classes_first_and_all_of_them_add_up_to_one(
    client: Client, digits: Digits
) -> None:
    (prediction,) = client.models.predict("digits", digits.images_NHW[:1], top_k=10).predictions
    (shorter,) = client.models.predict("digits", digits.images_NHW[:1], top_k=3).predictions
    top = top_of(prediction)

    assert all(left.score >= right.score for left, right in pairwise(top))
    assert sum(one.score for one in top) == pytest.approx(1, abs=1e-5)
    assert sorted(one.label for one in top) == [str(digit) for digit in range(10)]
    assert top_of(shorter) == top[:3]
    assert (shorter.label, shorter.index, shorter.score) == (top[0].label, top[0].index, top[0].score)


def test_bad_row_in_the_middle_holds_its_error_and_the_others_their_answers(
    client: Client, digits: Digits
) -> None:
    first, second = digits.images_NHW[:2]
    ragged, too_bright, too_small = [[1, 2], [3]], [[256] * 8] * 8, [[0] * 7] * 8
    predictions = client.models.predict(
        "digits", [first, ragged, too_bright, "seven", too_small, second]
    ).predictions
    alone = [client.models.predict("digits", [image]).predictions[0] for image in (first, second)]

    assert [predictions[0].label, predictions[-1].label] == [one.label for one in alone]
    assert [predictions[0].score, predictions[-1].score] == pytest.approx(
        [one.score for one in alone], abs=1e-5
    )
    for bad in predictions[1:-1]:
        assert (error_of(bad).status, error_of(bad).code) == (422, "bad_instance")
        assert not bad.label
    assert "256" in error_of(predictions[2]).detail
    assert "[1, 8, 7]" in error_of(predictions[4]).detail


def test_answer_in_a_large_batch_is_the_answer_alone(client: Client, digits: Digits) -> None:
    together = scores_of(client.models.predict("digits", digits.images_NHW, top_k=10))
    alone = np.concatenate(
        [scores_of(client.models.predict("digits", [image], top_k=10)) for image in digits.images_NHW[::30]]
    )

    assert len(together) == len(digits.images_NHW) > 256
    assert np.abs(together[::30] - alone).max() < 1e-5


def test_alias_production_answers_where_no_version_is_named(client: Client, digits: Digits) -> None:
    def version_of(reference: str) -> int:
        return client.models.predict(reference, digits.images_NHW[:1]).version

    assert version_of("digits") == 2
    model = client.models.set_alias("digits", "production", 1)
    client.models.set_alias("digits", "next", 2)
    try:
        assert model.aliases == {"production": 1}
        assert client.models.version("digits", 1).aliases == ["production"]
        references = ("digits", "digits@production", "digits@next", "digits@1", "digits@2", "digits@latest")
        assert [version_of(reference) for reference in references] == [1, 1, 2, 1, 2, 2]
    finally:
        client.models.delete_alias("digits", "production")
        client.models.delete_alias("digits", "next")
    assert version_of("digits") == 2
    assert client.models.get("digits").aliases == {}


def test_alias_moves_to_what_is_as_good_and_back_in_one_call(client: Client, digits: Digits) -> None:
    accuracies = {v: client.models.version("digits", v).metrics["test_accuracy"] or 0.0 for v in (1, 2)}
    worse, better = sorted(accuracies, key=accuracies.__getitem__)
    gap = accuracies[better] - accuracies[worse]
    try:
        client.models.set_alias("digits", "live", better)
        with pytest.raises(errors.Conflict, match=f"digits@{better} has {accuracies[better]:.6g}"):
            client.models.set_alias(
                "digits", "live", worse, require={"metric": "test_accuracy", "min_delta": 1e-6}
            )
        client.models.set_alias(
            "digits", "live", worse, require={"metric": "test_accuracy", "min_delta": -gap}, reason="a test"
        )
        assert client.models.rollback("digits", "live").aliases["live"] == better
        moves = [
            (m.kind, m.from_version, m.to_version) for m in client.models.alias_history("digits", "live")
        ]
        assert moves == [("rollback", worse, better), ("set", better, worse), ("set", None, better)]
    finally:
        client.models.delete_alias("digits", "live")


def test_versions_of_other_splits_are_measured_on_pictures_that_neither_learned_from(
    client: Client, digits: Digits
) -> None:
    for seed in (0, 1):
        spec = job("digits-rivals", "digits", *LAYERS) | {"split": {"validation": 0.3, "seed": seed}}
        client.jobs.submit(spec | {"trainer": {"epochs": 2, "batch_size": 32}}).wait(timeout_s=100)
    client.models.set_alias("digits-rivals", "live", 1)
    client.models.set_alias("digits-rivals", "live", 2, require={"metric": "val_accuracy", "min_delta": -0.2})
    move = next(client.models.alias_history("digits-rivals", "live"))
    assert move.required is not None
    assert move.required.incumbent is not None
    assert move.required.rows is not None
    assert 60 < move.required.rows < 250  # about 0.3 * 0.3 of 1,437 pictures
    registered = [client.models.version("digits-rivals", v).metrics["val_accuracy"] or 0.0 for v in (2, 1)]
    assert [move.required.candidate, move.required.incumbent] == pytest.approx(registered, abs=0.1)


@pytest.mark.parametrize("reference", ["digits@3", "digits@staging", "digits@", "nobody", "nobody@1"])
def test_unknown_model_version_or_alias_is_404(http: httpx2.Client, digits: Digits, reference: str) -> None:
    reply = http.post(f"/v1/models/{reference}/predict", json={"instances": digits.images_NHW[:1]})
    assert reply.status_code == 404
    assert "GET /v1/models" in reply.json()["detail"]


@pytest.mark.parametrize("alias", ["latest", "best", "7", "Upper"])
def test_alias_that_could_mean_something_else_is_422(client: Client, digits: Digits, alias: str) -> None:
    with pytest.raises(errors.Invalid, match="alias"):
        client.models.set_alias("digits", alias, 1)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "image/gif"])
def test_body_of_another_kind_is_415(http: httpx2.Client, digits: Digits, content_type: str) -> None:
    reply = http.post(
        "/v1/models/digits/predict", content=digits.pngs[0], headers={"Content-Type": content_type}
    )
    assert reply.status_code == 415
    assert "application/json" in reply.json()["detail"]


@pytest.mark.parametrize(
    "body", [{"instances": []}, {"instances": [[[0]]], "top_k": 0}, {"rows": [[[0]]]}, {}]
)
def test_request_without_rows_is_422(http: httpx2.Client, digits: Digits, body: dict[str, Any]) -> None:
    assert http.post("/v1/models/digits/predict", json=body).status_code == 422


def test_body_that_is_no_whole_image_is_422(http: httpx2.Client, digits: Digits) -> None:
    headers = {"Content-Type": "image/png"}
    reply = http.post("/v1/models/digits/predict", content=digits.pngs[0][:60], headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_instance")


def test_trained_model_answers_the_open_inference_protocol_as_v1(http: httpx2.Client, digits: Digits) -> None:
    metadata = http.get("/v2/models/digits/versions/2").json()
    version = http.get("/v1/models/digits/versions/2").json()
    assert {"inputs": metadata["inputs"], "outputs": metadata["outputs"]} == version["signature"]
    pixels = np.array(digits.images_NHW[:5])[:, None]
    tensor = {"name": "input", "datatype": "UINT8", "shape": [5, 1, 8, 8], "data": pixels.tolist()}
    reply = http.post("/v2/models/digits/versions/2/infer", json={"inputs": [tensor]}).json()
    scores, label = reply["outputs"]
    body = {"instances": digits.images_NHW[:5], "top_k": 10}
    predictions = http.post("/v1/models/digits@2/predict", json=body).json()["predictions"]
    assert label["data"] == [row["label"] for row in predictions]
    by_index = [
        one["score"] for row in predictions for one in sorted(row["top"], key=lambda one: one["index"])
    ]
    assert scores["data"] == by_index


def test_version_tells_where_it_comes_from_and_what_it_takes(
    client: Client, digits: Digits, digits_zip: Path
) -> None:
    (_, trained), version = digits.jobs, client.models.version("digits", 2)
    dataset = client.datasets.get("digits")

    assert trained.registered is not None
    assert (trained.registered.model, trained.registered.version) == ("digits", 2)
    assert (version.state, version.task) == ("ready", "classification")
    assert version.classes == [str(digit) for digit in range(10)]
    assert (version.signature.inputs[0].datatype, version.signature.inputs[0].shape) == (
        "UINT8",
        [-1, 1, 8, 8],
    )
    assert [(one.name, one.shape) for one in version.signature.outputs] == [
        ("scores", [-1, 10]),
        ("label", [-1]),
    ]
    assert version.metrics == trained.metrics
    evaluation = version.evaluation
    assert evaluation is not None
    assert evaluation.confusion_matrix is not None
    assert (evaluation.split, len(evaluation.per_class)) == ("test", 10)
    assert sum(row.support for row in evaluation.per_class) == dataset.splits["test"]
    right = sum(evaluation.confusion_matrix[k][k] for k in range(10))
    assert version.metrics["test_accuracy"] == pytest.approx(right / dataset.splits["test"])
    assert all(listed.evaluation is None for listed in client.models.versions("digits"))
    assert version.metrics.keys() >= {"train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"}
    assert version.spec == trained.spec
    lineage = version.lineage
    assert (lineage.job, lineage.seed) == (trained.id, 2)
    assert (lineage.dataset, lineage.dataset_version) == ("digits", dataset.version)
    assert lineage.dataset_sha256 == hashlib.sha256(digits_zip.read_bytes()).hexdigest()
    assert lineage.environment["torch"] == str(torch.__version__)
    assert trained.best is not None
    assert lineage.checkpoint == trained.best.checkpoint
    assert [one.version for one in client.models.versions("digits")] == [2, 1]
    assert [one.latest for one in client.models.list() if one.name == "digits"] == [2]


def test_test_accuracy_is_the_share_of_test_pictures_that_the_api_gets_right(
    client: Client, digits: Digits
) -> None:
    predictions = client.models.predict("digits", digits.images_NHW).predictions
    truth = [str(digit) for digit in load_digits().target[::5]]
    right = sum(one.label == label for one, label in zip(predictions, truth, strict=True))

    assert digits.jobs[1].metrics["test_accuracy"] == pytest.approx(right / len(truth), abs=1e-9)


def test_weights_loaded_by_a_plain_script_give_the_answers_of_the_api(
    client: Client, digits: Digits, tmp_path: Path
) -> None:
    checkpoint = client.models.version("digits", 1).lineage.checkpoint
    weights = client.checkpoints.download(checkpoint, tmp_path / "weights.pt")
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    net.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    x_BCHW = torch.tensor(digits.images_NHW)[:, None] / 255
    with torch.no_grad():
        scores_BC = net.eval()(x_BCHW).softmax(1).numpy()

    answered_BC = scores_of(client.models.predict("digits@1", digits.images_NHW, top_k=10))
    assert np.abs(scores_BC - answered_BC).max() < 1e-5


def test_a_trained_version_s_graph_gives_the_answers_of_the_api(
    client: Client, digits: Digits, tmp_path: Path
) -> None:
    path = client.models.download("digits", 1, tmp_path / "digits.pt2", format="torch_export")
    x_BCHW = torch.tensor(digits.images_NHW)[:, None] / 255
    with torch.no_grad():
        scores_BC = torch.export.load(path).module()(x_BCHW).numpy()

    answered_BC = scores_of(client.models.predict("digits@1", digits.images_NHW, top_k=10))
    assert np.abs(scores_BC - answered_BC).max() < 1e-5


def test_weights_come_in_ranges_and_not_again_where_the_client_has_them(
    http: httpx2.Client, client: Client, digits: Digits
) -> None:
    (checkpoint,) = (one for one in client.jobs.handle(digits.jobs[0].id).checkpoints() if one.is_best)
    url = f"/v1/checkpoints/{checkpoint.id}/weights"
    whole = http.get(url)
    size = len(whole.content)
    parts = [http.get(url, headers={"Range": f"bytes={span}"}) for span in ("0-999", "1000-")]

    assert (whole.status_code, size) == (200, checkpoint.size)
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert checkpoint.sha256 in whole.headers["etag"]
    assert [part.status_code for part in parts] == [206, 206]
    assert [part.headers["content-range"] for part in parts] == [
        f"bytes 0-999/{size}",
        f"bytes 1000-{size - 1}/{size}",
    ]
    assert b"".join(part.content for part in parts) == whole.content
    again = http.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = http.get(url, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (changed.status_code, len(changed.content)) == (200, size)
    assert http.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416


def linear_of(client: Client, version: ModelVersion, folder: Path) -> tuple[Tensor, Tensor]:
    """Weight [C, F] and bias [C] of a model that is one Linear layer."""
    path = client.checkpoints.download(version.lineage.checkpoint, folder / "weights.pt")
    weights = torch.load(path, weights_only=True)
    return weights["0.weight"], weights["0.bias"]


def test_table_fills_what_is_missing_with_the_mean_and_leaves_an_unknown_category_out(
    client: Client, tmp_path: Path
) -> None:
    heights: list[float | None] = [150.0, 160.0, None, 170.0, 180.0, 190.0] * 4
    colours = ["red", "green", "blue"] * 8
    labels = ["tall" if (height or 0) > 165 else "small" for height in heights]
    rows = [
        ["" if height is None else height, *rest]
        for height, *rest in zip(heights, colours, labels, strict=True)
    ]
    header = ["height", "colour", "size"]
    data = zip_bytes({"train.csv": csv_bytes([header, *rows]), "val.csv": csv_bytes([header, *rows[:6]])})
    client.datasets.push("people", data)
    spec = job("people", "people", {"type": "Linear", "out_features": 2}, trainer={"epochs": 3})
    client.jobs.submit(spec).wait(timeout_s=100)
    instances = [
        {"height": 180, "colour": "green"},
        {"height": None, "colour": "blue"},
        {"colour": "red"},
        {"height": 150.5, "colour": "violet"},
        {"height": "tall", "colour": "red"},
        {"height": 170, "colour": "red", "shoes": 43},
    ]
    reply = client.models.predict("people", instances, top_k=2)

    column_N = np.array(heights, dtype=float)  # None becomes nan
    mean = np.nanmean(column_N)
    std = np.nan_to_num(column_N, nan=mean).std()
    height_B = np.array([180, mean, mean, 150.5])
    spread = [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]  # blue, green, red: by codepoint
    x_BF = np.column_stack([(height_B - mean) / std, spread])
    weight_CF, bias_C = linear_of(client, client.models.version("people", 1), tmp_path)
    scores_BC = (torch.tensor(x_BF, dtype=torch.float32) @ weight_CF.T + bias_C).softmax(1)
    assert client.models.version("people", 1).classes == ["small", "tall"]
    answered = scores_of(PredictReply("people", 1, reply.predictions[:4]))
    assert np.abs(answered - scores_BC.numpy()).max() < 1e-5
    assert "expected a number" in error_of(reply.predictions[4]).detail
    assert "shoes" in error_of(reply.predictions[5]).detail


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_arrays_predict_what_their_layer_computes(client: Client, tmp_path: Path, task: str) -> None:
    random = np.random.default_rng(7)
    x_NF = random.normal(size=(200, 2, 3)).astype(np.float32)
    sums_N = x_NF.sum(axis=(1, 2))
    y_N = (sums_N > 0).astype(np.int64) if task == "classification" else sums_N
    name = f"sums-{task}"
    arrays = {"x": x_NF[:160], "y": y_N[:160], "x_test": x_NF[160:], "y_test": y_N[160:]}
    dataset = client.datasets.push(name, npz_bytes(**arrays), format="arrays")
    outputs = 2 if task == "classification" else 1
    spec = job(
        name,
        name,
        {"type": "Flatten"},
        {"type": "Linear", "out_features": outputs},
        optimizer={"type": "Adam", "lr": 0.05},
        trainer={"epochs": 20, "batch_size": 16, "checkpoint": {"every_epochs": 10}},
    )
    trained = client.jobs.submit(spec).wait(timeout_s=100)
    reply = client.models.predict(name, x_NF[160:], top_k=2)

    assert dataset.splits == {"train": 160, "test": 40}
    path = client.checkpoints.download(
        client.models.version(name, 1).lineage.checkpoint, tmp_path / "weights.pt"
    )
    weights = torch.load(path, weights_only=True)
    outputs_BC = torch.from_numpy(x_NF[160:].reshape(40, 6)) @ weights["1.weight"].T + weights["1.bias"]
    if task == "classification":
        assert np.abs(scores_of(reply) - outputs_BC.softmax(1).numpy()).max() < 1e-5
        right = [one.label == str(truth) for one, truth in zip(reply.predictions, y_N[160:], strict=True)]
        assert trained.metrics["test_accuracy"] == pytest.approx(np.mean(right))
        assert np.mean(right) > 0.9
    else:
        values = [one.value for one in reply.predictions]
        assert values == pytest.approx(outputs_BC[:, 0].tolist(), abs=1e-5)
        assert trained.metrics["test_mae"] == pytest.approx(np.abs(values - y_N[160:]).mean(), abs=1e-5)
        assert (trained.metrics["test_r2"] or 0) > 0.95
