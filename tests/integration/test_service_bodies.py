"""Bodies beside JSON over a real socket: the same numbers as the same rows by JSON; and explanations."""

import base64
import contextlib
import csv
import http.client
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import (
    Imputed,
    Indexed,
    Lowercased,
    Padded,
    Spread,
    SpreadFeature,
    Standardized,
    Truncated,
)
from core.nets.artifacts import VersionManifest
from core.nets.transforms import resolve
from modelyard.specs import Signature
from service.explanations import MAX_EXPLAINED
from service.prediction_bodies.form import MAX_PARTS
from tests.make_data import encode
from tests.running_service import Owner, RunningService, run_service

pytestmark = pytest.mark.usefixtures("service_fork_server")

PREDICT = "/v1/models/m/predict"
CSV = {"Content-Type": "text/csv"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}

TABLE = {
    "kind": Kind.TABLE,
    "model": {"type": "Linear", "in_features": 4, "out_features": 3},
    "prepare": [
        FittedColumn("age", "number", [Imputed([40.0]), Standardized([38.0], [12.5])]),
        FittedColumn("city", "string", [Spread([SpreadFeature(["bern", "oslo", "rome"], 3)])]),
    ],
}
ROWS = [
    {"age": 20.25, "city": "rome"},
    {"age": None, "city": "bern"},
    {"age": 1e2, "city": "a city, unknown"},
    {"age": -3, "city": "oslo"},
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """What a body says has nothing to do with which database it is."""
    home = tmp_path_factory.mktemp("home")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as running:
        yield running


def register(service: RunningService, me: Owner, net: nn.Module, **fields: Any) -> None:
    """As the next version of the model `m`."""
    usual: dict[str, Any] = {
        "task": "classification",
        "row_shape": [4],
        "classes": ["a", "b", "c"],
        "transforms": [],
        "prepare": [],
        "signature": Signature([], []),
        "golden": [],
        "tolerance": 1e-6,
    }
    me.version(service.settings, net, described=VersionManifest(**(usual | fields)))


def images(channels: int = 3) -> dict[str, Any]:
    """A model of images that it resizes to 6 x 5."""
    layers = [{"type": "Flatten"}, {"type": "Linear", "in_features": channels * 30, "out_features": 3}]
    return {
        "kind": Kind.IMAGES,
        "model": {"type": "Sequential", "layers": layers},
        "row_shape": [channels, 6, 5],
        "transforms": resolve([{"type": "Resize", "size": [6, 5]}]),
        "image_mode": "L" if channels == 1 else "RGB",
    }


def image_net(channels: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 30, 3))


def table_net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Linear(4, 3)


def picture(seed: int) -> np.ndarray[Any, Any]:
    """[H, W, C] of pixels; each seed its own size."""
    shape = (9 + seed, 8, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


PICTURES = [picture(seed) for seed in range(5)]
FILES = [encode(Image.fromarray(pixels)) for pixels in PICTURES]


def by_json(me: Owner, instances: list[Any], **more: Any) -> Any:
    reply = me.client.post(PREDICT, json={"instances": instances, "top_k": 3, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def form(*files: bytes) -> dict[str, Any]:
    return {"files": [("image", (f"{number}.png", data)) for number, data in enumerate(files)]}


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def arrow_of(**columns: Any) -> bytes:
    batch = pa.record_batch({name: pa.array(values) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def test_the_images_of_a_form_are_answered_as_their_pixels_are_in_order(
    service: RunningService, me: Owner
) -> None:
    register(service, me, image_net(), **images())
    reply = me.client.post(PREDICT, params={"top_k": 3}, **form(*FILES))
    assert reply.status_code == 200, reply.text
    assert reply.json() == by_json(me, [pixels.tolist() for pixels in PICTURES])


def test_a_bad_part_holds_its_error_and_the_others_their_answer(service: RunningService, me: Owner) -> None:
    register(service, me, image_net(), **images())
    reply = me.client.post(PREDICT, **form(FILES[0], b"no image", b"", FILES[1][:60], FILES[1]))
    predictions = reply.json()["predictions"]
    assert ["error" in one for one in predictions] == [False, True, True, True, False]
    assert predictions[1]["error"]["code"] == "bad_instance"
    alone = [by_json(me, [pixels.tolist()])["predictions"][0]["label"] for pixels in PICTURES[:2]]
    assert [predictions[0]["label"], predictions[4]["label"]] == alone


def test_a_form_is_bounded_in_parts_bytes_and_pixels(service: RunningService, me: Owner) -> None:
    register(service, me, image_net(), **images())
    assert me.client.post(PREDICT, **form(*[b""] * (MAX_PARTS + 1))).status_code == 413
    assert me.client.post(PREDICT, **form(bytes(33 * 1024 * 1024))).status_code == 413
    huge = encode(Image.new("L", (7000, 7000)))
    reply = me.client.post(PREDICT, **form(*[huge] * 5))
    assert (reply.status_code, "pixels together" in reply.text) == (413, True)


def test_what_is_no_form_of_images_is_refused(service: RunningService, me: Owner) -> None:
    register(service, me, image_net(), **images())
    field = me.client.post(PREDICT, data={"top_k": "3"}, **form(FILES[0]))
    assert (field.status_code, field.json()["code"]) == (422, "not_a_file")
    bare = me.client.post(PREDICT, content=FILES[0], headers={"Content-Type": "multipart/form-data"})
    assert (bare.status_code, "boundary" in bare.text) == (415, True)
    cut = me.client.post(
        PREDICT, content=b"--b\r\n", headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert cut.status_code == 400


def test_images_for_a_table_and_a_table_for_images_are_refused(service: RunningService, me: Owner) -> None:
    register(service, me, table_net(), **TABLE)
    assert me.client.post(PREDICT, **form(FILES[0])).json()["code"] == "wrong_kind"
    register(service, me, image_net(), **images())
    reply = me.client.post(PREDICT, content=csv_of(ROWS), headers=CSV)
    assert (reply.status_code, reply.json()["code"]) == (422, "wrong_kind")


def test_the_rows_of_a_csv_and_of_arrow_are_answered_as_row_objects_are(
    service: RunningService, me: Owner
) -> None:
    register(service, me, table_net(), **TABLE)
    expected = by_json(me, ROWS)
    assert len({one["score"] for one in expected["predictions"]}) == len(ROWS)
    columns = {name: [row[name] for row in ROWS] for name in ("city", "age")}
    for content, headers in ((csv_of(ROWS), CSV), (arrow_of(**columns), ARROW)):
        reply = me.client.post(PREDICT, params={"top_k": 3}, content=content, headers=headers)
        assert reply.status_code == 200, reply.text
        assert reply.json() == expected


def test_a_bad_line_of_a_csv_holds_its_error(service: RunningService, me: Owner) -> None:
    register(service, me, table_net(), **TABLE)
    content = b"age,city\n1,rome\nold,rome\n2\n3,oslo\n"
    predictions = me.client.post(PREDICT, content=content, headers=CSV).json()["predictions"]
    assert [one.get("error", {}).get("detail") for one in predictions] == [
        None,
        "'age': expected a number, got str",
        "expected 2 cells, got 1",
        None,
    ]


def test_text_comes_by_csv_and_by_arrow(service: RunningService, me: Owner) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Linear(8, 3))
    words = [Lowercased(), Indexed(["good", "bad", "not", "very"]), Truncated(4), Padded(4)]
    layers = [
        {"type": "Embedding", "num_embeddings": 6, "embedding_dim": 2},
        {"type": "Flatten"},
        {"type": "Linear", "in_features": 8, "out_features": 3},
    ]
    register(
        service,
        me,
        net,
        kind=Kind.TABLE,
        model={"type": "Sequential", "layers": layers},
        prepare=[FittedColumn("text", "string", words)],
    )
    texts = ["Good, very good", "not\nbad", '"very" bad', "grüezi"]
    expected = by_json(me, [{"text": text} for text in texts])
    for content, headers in (
        (csv_of([{"text": text} for text in texts]), CSV),
        (arrow_of(text=texts), ARROW),
    ):
        reply = me.client.post(PREDICT, params={"top_k": 3}, content=content, headers=headers)
        assert reply.json() == expected
    refused = me.client.post(PREDICT, json={"instances": [{"text": "good"}], "explain": "saliency"})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_explainable")
    assert "no gradient" in refused.json()["detail"]


def test_arrays_and_images_come_by_arrow(service: RunningService, me: Owner) -> None:
    torch.manual_seed(4)
    me.version(service.settings, nn.Sequential(nn.Linear(4, 3)))
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = by_json(me, values.tolist())
    for sent in (pa.FixedShapeTensorArray.from_numpy_ndarray(values), [*values], values.tolist()):
        content = arrow_of(x=sent)
        reply = me.client.post(PREDICT, params={"top_k": 3}, content=content, headers=ARROW)
        assert reply.json() == expected
    register(service, me, image_net(), **images())
    expected = by_json(me, [pixels.tolist() for pixels in PICTURES])
    for files in (FILES, [pixels.tolist() for pixels in PICTURES]):
        content = arrow_of(image=files)
        reply = me.client.post(PREDICT, params={"top_k": 3}, content=content, headers=ARROW)
        assert reply.json() == expected


@pytest.mark.parametrize("headers", [CSV, ARROW, {"Content-Type": "multipart/form-data; boundary=b"}])
def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    service: RunningService, me: Owner, headers: dict[str, str]
) -> None:
    register(service, me, table_net(), **TABLE)
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("POST", PREDICT)
        length = {"Content-Length": str(300 * 1000 * 1000), "Authorization": f"Bearer {me.key}"}
        for name, value in {**headers, **length}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_csv_of_another_charset_is_refused(service: RunningService, me: Owner) -> None:
    register(service, me, table_net(), **TABLE)
    headers = {"Content-Type": "text/csv; charset=latin-1"}
    assert me.client.post(PREDICT, content=csv_of(ROWS), headers=headers).status_code == 415
    headers = {"Content-Type": 'text/csv; charset="UTF-8"; header=present'}
    assert me.client.post(PREDICT, content=csv_of(ROWS), headers=headers).status_code == 200


# Explanations


def png_of(prediction: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(prediction["explanation"]["heat_map"])))


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients"])
def test_each_image_gets_a_heat_map_of_the_class_it_was_given(
    service: RunningService, me: Owner, method: str
) -> None:
    net = image_net()
    register(service, me, net, **images())
    instances = [PICTURES[0].tolist(), "no image", PICTURES[1].tolist()]
    answer = by_json(me, instances, explain=method)
    first, bad, second = answer["predictions"]
    for prediction in (first, second):
        explanation = prediction.pop("explanation")
        assert (explanation["method"], explanation["index"]) == (method, prediction["index"])
        heat = Image.open(io.BytesIO(base64.b64decode(explanation["heat_map"])))
        assert (heat.format, heat.size, heat.mode) == ("PNG", (5, 6), "RGB")
    assert "explanation" not in bad
    assert answer == by_json(me, instances)


def test_images_as_files_are_explained_by_the_query(service: RunningService, me: Owner) -> None:
    register(service, me, image_net(), **images())
    asked = {"explain": "saliency"}
    (by_pixels,) = by_json(me, [PICTURES[0].tolist()], explain="saliency")["predictions"]
    headers = {"Content-Type": "image/png"}
    (alone,) = me.client.post(PREDICT, params=asked, content=FILES[0], headers=headers).json()["predictions"]
    of_form = me.client.post(PREDICT, params=asked, **form(FILES[0], FILES[1])).json()["predictions"]
    assert png_of(alone).tobytes() == png_of(by_pixels).tobytes() == png_of(of_form[0]).tobytes()
    assert len(of_form) == 2


def test_the_columns_of_a_row_have_what_they_add(service: RunningService, me: Owner) -> None:
    net = table_net()
    register(service, me, net, **TABLE)
    (prediction,) = by_json(me, [{"age": 63, "city": "oslo"}], explain="integrated_gradients")["predictions"]
    weight = net.weight[prediction["index"]].tolist()  # type: ignore[index,operator]
    assert prediction["explanation"]["columns"] == pytest.approx(
        {"age": 2 * weight[0], "city": weight[2]}, rel=1e-5
    )


def test_what_cannot_be_explained_says_why(service: RunningService, me: Owner) -> None:
    me.version(service.settings, nn.Sequential(nn.Linear(4, 3)))
    row = [0.5] * 4
    reply = me.client.post(PREDICT, json={"instances": [row], "explain": "saliency"})
    assert (reply.status_code, reply.json()["code"]) == (422, "not_explainable")
    many = me.client.post(PREDICT, json={"instances": [row] * (MAX_EXPLAINED + 1), "explain": "saliency"})
    assert (many.status_code, many.json()["errors"][0]["pointer"]) == (422, "/instances")
    other = me.client.post(PREDICT, json={"instances": [row], "explain": "lime"})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (422, "/explain")


def test_an_explanation_that_takes_too_long_costs_nobody_else_anything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with (
        run_service(f"sqlite:///{tmp_path / 'm.db'}", home, explain_deadline_s=0.001) as service,
        service.owner() as me,
    ):
        register(service, me, image_net(), **images())
        reply = me.client.post(PREDICT, json={"instances": [PICTURES[0].tolist()], "explain": "saliency"})
        assert (reply.status_code, reply.json()["code"]) == (422, "explanation_deadline")
        assert json.loads(reply.text)["detail"].startswith("Explaining these rows took longer")
        by_json(me, [PICTURES[0].tolist()])
