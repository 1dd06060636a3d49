"""Models, predictions and downloads, against a real server on loopback."""

from pathlib import Path

import msgspec
import pytest

from modelyard import Client, errors
from modelyard.specs import MoveKind, Requirement, Unloaded
from tests.unit.scripted_service import (
    AT,
    PNG,
    Answer,
    ScriptedService,
    a_move,
    a_reply,
    a_version,
    problem,
    weights,
)


def test_predict_keeps_the_order_and_the_place_of_a_bad_row(client: Client, service: ScriptedService) -> None:
    bad = {
        "type": "about:blank",
        "title": "Invalid",
        "status": 422,
        "detail": "expected 28 rows",
        "code": "shape",
    }
    body = a_reply("7", "1")
    body["predictions"].insert(1, {"error": bad})  # type: ignore[attr-defined]
    service.on("POST", "/v1/models/mnist-mlp@production/predict", Answer(200, body))
    reply = client.models.predict("mnist-mlp@production", [[[0]], [], [[1]]], top_k=2)
    assert [p.label for p in reply.predictions] == ["7", msgspec.UNSET, "1"]
    assert reply.predictions[1].error.detail == "expected 28 rows"  # type: ignore[union-attr]
    assert service.requests[0].json() == {"instances": [[[0]], [], [[1]]], "top_k": 2}


def test_arrays_are_sent_as_nested_lists(client: Client, service: ScriptedService) -> None:
    numpy = pytest.importorskip("numpy")
    service.on("POST", "/v1/models/m/predict", Answer(200, a_reply("1")))
    client.models.predict("m", numpy.arange(6, dtype="uint8").reshape(1, 2, 3))
    client.models.predict("m", [{"image": numpy.zeros((1, 2)), "n": 3}])
    assert [r.json()["instances"] for r in service.requests] == [  # type: ignore[index]
        [[[0, 1, 2], [3, 4, 5]]],
        [{"image": [[0.0, 0.0]], "n": 3}],
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF1234WEBPVP8 ", "image/webp")],
)
def test_an_image_is_sent_as_it_is_with_the_type_of_its_bytes(
    client: Client, service: ScriptedService, tmp_path: Path, data: bytes, kind: str
) -> None:
    service.on("POST", "/v1/models/m/predict", Answer(200, a_reply("7")))
    (tmp_path / "named.bmp").write_bytes(data)
    client.models.predict_image("m", data)
    client.models.predict_image("m", tmp_path / "named.bmp", top_k=3)
    assert [(r.headers["content-type"], r.body) for r in service.requests] == [(kind, data)] * 2
    assert [r.query["top_k"] for r in service.requests] == ["1", "3"]


def test_bytes_that_are_no_image_are_not_sent(client: Client, service: ScriptedService) -> None:
    with pytest.raises(errors.InvalidArgument, match="expected the bytes of a PNG"):
        client.models.predict_image("m", b"GIF89a")
    assert service.requests == []


def test_several_images_are_sent_as_one_form(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("POST", "/v1/models/m/predict", Answer(200, a_reply("7", "1")))
    (tmp_path / "a.png").write_bytes(PNG)
    client.models.predict_images("m", [tmp_path / "a.png", b"other bytes"], top_k=2)
    (request,) = service.requests
    kind, _, boundary = request.headers["content-type"].partition("; boundary=")
    assert (kind, request.query) == ("multipart/form-data", {"top_k": "2"})
    first, one, other, last = request.body.split(f"--{boundary}".encode())
    assert (first, last) == (b"", b"--\r\n")
    assert [part.partition(b"\r\n\r\n")[2] for part in (one, other)] == [PNG + b"\r\n", b"other bytes\r\n"]
    assert b'filename="0"' in one


def test_rows_of_csv_and_arrow_are_sent_as_they_are(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("POST", "/v1/models/m/predict", Answer(200, a_reply("7")))
    (tmp_path / "rows.csv").write_bytes(b"a\n1\n")
    client.models.predict_csv("m", tmp_path / "rows.csv")
    client.models.predict_arrow("m", b"stream", top_k=3)
    assert [(r.headers["content-type"], r.body, r.query["top_k"]) for r in service.requests] == [
        ("text/csv", b"a\n1\n", "1"),
        ("application/vnd.apache.arrow.stream", b"stream", "3"),
    ]


def test_an_explanation_is_asked_for_and_read(client: Client, service: ScriptedService) -> None:
    explanation = {"method": "saliency", "index": 1, "columns": {"age": 0.5}, "later": 1}
    body = a_reply("7")
    body["predictions"][0]["explanation"] = explanation  # type: ignore[index]
    service.on("POST", "/v1/models/m/predict", Answer(200, body))
    (prediction,) = client.models.predict("m", [{"age": 1}], explain="saliency").predictions
    client.models.predict_image("m", PNG, explain="integrated_gradients")
    assert prediction.explanation.columns == {"age": 0.5}  # type: ignore[union-attr]
    assert service.requests[0].json() == {"instances": [{"age": 1}], "top_k": 1, "explain": "saliency"}
    assert service.requests[1].query == {"top_k": "1", "explain": "integrated_gradients"}


def test_models_versions_and_aliases(client: Client, service: ScriptedService) -> None:
    model = {"name": "m", "created_at": AT, "latest": 3, "aliases": {"production": 3}}
    service.on("GET", "/v1/models", Answer(200, {"items": [model], "next": None}))
    service.on("GET", "/v1/models/m", Answer(200, model))
    service.on("GET", "/v1/models/m/versions", Answer(200, {"items": [a_version()], "next": None}))
    service.on("GET", "/v1/models/m/versions/3", Answer(200, a_version()))
    service.on("PUT", "/v1/models/m/aliases/production", Answer(200, model))
    service.on("DELETE", "/v1/models/m/aliases/production", Answer(204))
    assert next(client.models.list()).name == "m"
    assert client.models.get("m").latest == 3
    assert next(client.models.versions("m")).lineage.seed == 0
    assert client.models.version("m", 3).signature.inputs[0].shape == [-1, 1, 28, 28]
    assert client.models.set_alias("m", "production", 3).aliases == {"production": 3}
    client.models.delete_alias("m", "production")
    assert service.requests_for("PUT", "/v1/models/m/aliases/production")[0].json() == {"version": 3}


def test_what_is_in_memory_is_read_and_unloaded(client: Client, service: ScriptedService) -> None:
    loaded = {"version": 3, "state": "loaded", "bytes": 8, "waiting_rows": 2, "in_flight_rows": 1, "later": 1}
    model = {"name": "m", "created_at": AT, "latest": 3, "aliases": {}, "loaded": [loaded]}
    service.on("GET", "/v1/models/m", Answer(200, model))
    gone = {"model": "m", "versions": [3], "bytes": 8, "returned_bytes": 4096}
    service.on("POST", "/v1/models/m/unload", Answer(200, gone))
    (version,) = client.models.get("m").loaded or []
    assert (version.version, version.waiting_rows, version.in_flight_rows) == (3, 2, 1)
    assert client.models.unload("m") == Unloaded("m", [3], 8, 4096)


def test_aliases_are_promoted_rolled_back_and_followed(client: Client, service: ScriptedService) -> None:
    model = {"name": "m", "created_at": AT, "latest": 3, "aliases": {"production": 2}}
    alias = "/v1/models/m/aliases/production"
    pages = [{"items": [a_move(2)], "next": "move_2"}, {"items": [a_move(1, **{"from": None})], "next": None}]
    service.on("PUT", alias, Answer(200, model))
    service.on("POST", f"{alias}/rollback", Answer(200, model))
    service.on("GET", f"{alias}/history", *(Answer(200, page) for page in pages))
    service.on("DELETE", "/v1/models/m/versions/1", Answer(204))
    required = Requirement("val_accuracy", 0.01)
    client.models.set_alias("m", "production", 2, require=required, reason="better")
    client.models.set_alias("m", "production", 2, require={"metric": "val_accuracy"})
    assert client.models.rollback("m", "production", reason="slow").aliases == {"production": 2}
    client.models.rollback("m", "production")
    moves = list(client.models.alias_history("m", "production"))
    client.models.delete_version("m", 1)
    assert [(move.seq, move.kind, move.from_version, move.to_version) for move in moves] == [
        (2, MoveKind.SET, 1, 2),
        (1, MoveKind.SET, None, 2),
    ]
    assert (moves[0].by.name, moves[0].required and moves[0].required.incumbent) == ("ci", 0.9)
    assert [one.json() for one in service.requests_for("PUT", alias)] == [
        {
            "version": 2,
            "require": {"metric": "val_accuracy", "min_delta": 0.01, "mode": None},
            "reason": "better",
        },
        {"version": 2, "require": {"metric": "val_accuracy"}},
    ]
    assert [one.json() for one in service.requests_for("POST", f"{alias}/rollback")] == [
        {"reason": "slow"},
        {},
    ]


def test_a_rollback_is_never_sent_twice(client: Client, service: ScriptedService) -> None:
    path = "/v1/models/m/aliases/production/rollback"
    service.on("POST", path, problem(503, "unavailable", "come again"))
    with pytest.raises(errors.Unavailable):
        client.models.rollback("m", "production")
    assert len(service.requests_for("POST", path)) == 1


def test_a_download_appears_whole_under_its_name(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    data = bytes(3_000_000)
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", weights(data[:99], breaks_off=True), weights(data))
    target = tmp_path / "weights.pt"
    assert client.checkpoints.download("ckpt_1", target) == target
    assert target.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_weights_come_in_the_format_that_is_asked_for(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", weights(b"a"), weights(b"b"))
    service.on("GET", "/v1/models/m/versions/3/weights", weights(b"c"), weights(b"d"))
    client.checkpoints.download("ckpt_1", tmp_path / "a")
    client.checkpoints.download("ckpt_1", tmp_path / "b", format="safetensors")
    client.models.download("m", 3, tmp_path / "c", format="onnx")
    client.models.download("m", 3, tmp_path / "d")
    assert [request.query for request in service.requests] == [
        {},
        {"format": "safetensors"},
        {"format": "onnx"},
        {},
    ]
    assert b"".join((tmp_path / name).read_bytes() for name in "abcd") == b"abcd"


def test_an_export_under_way_is_asked_for_again(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    busy = problem(503, "export_under_way", "it is being made", **{"Retry-After": "0"})
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", busy, busy, weights(b"graph"))
    client.checkpoints.download("ckpt_1", tmp_path / "net.pt2", format="torch_export")
    assert (tmp_path / "net.pt2").read_bytes() == b"graph"


def test_a_format_that_there_is_none_of_is_not_asked_for(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    with pytest.raises(errors.InvalidArgument, match="pt, safetensors, onnx, torch_export"):
        client.checkpoints.download("ckpt_1", tmp_path / "w", format="keras")
    assert service.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_download_leaves_what_was_there(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    target = tmp_path / "weights.pt"
    target.write_bytes(b"older")
    damaged = Answer(200, b"damaged", {"ETag": weights(b"whole").headers["ETag"]})
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", damaged)
    with pytest.raises(errors.UnexpectedReply, match="expected bytes with SHA-256"):
        client.checkpoints.download("ckpt_1", target)
    assert target.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_collected_checkpoint_is_gone(client: Client, service: ScriptedService, tmp_path: Path) -> None:
    service.on("GET", "/v1/checkpoints/ckpt_1/weights", problem(410, "gone", "its bytes were collected"))
    with pytest.raises(errors.Gone, match="collected"):
        client.checkpoints.download("ckpt_1", tmp_path / "weights.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_event_files_of_a_job_appear_whole_under_their_name(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    service.on(
        "GET", "/v1/jobs/job_1/tensorboard.zip", weights(b"PK", breaks_off=True), weights(b"PK and all")
    )
    assert client.jobs.tensorboard("job_1", tmp_path / "board.zip") == tmp_path / "board.zip"
    assert (tmp_path / "board.zip").read_bytes() == b"PK and all"
