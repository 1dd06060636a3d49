"""Weights in other formats over HTTP, each read by a reader that is not ours and compared with /predict."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from core.db.engines import open_async_database
from core.db.models import Checkpoint, Version
from core.db.statements import checkpoints
from core.export import make, stored
from core.storage import open_storage
from service import exporter
from service.collection import collect_exports
from tests.exported import CASES, Case, cnn_with_batch_norm, lstm_text, mlp, off_by, register, table
from tests.running_service import Owner, RunningService, run_service

# N rows, C classes or values

FORMATS = ["safetensors", "onnx", "torch_export"]
GRAPHS = ["onnx", "torch_export"]
#: They differ little from those that other tests make, and ONNX costs seconds of imports each time.
SMALL_ONNX = {("mlp", "onnx"), ("cnn_with_batch_norm", "onnx")}
PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    home = tmp_path_factory.mktemp("exports")
    with run_service(f"sqlite:///{home / 'modelyard.db'}", home) as running:
        yield running


def weights(me: Owner, version: Version, kind: str, **headers: str) -> httpx2.Response:
    url = f"/v1/models/m/versions/{version.version}/weights"
    return me.client.get(url, params={"format": kind}, headers=headers, timeout=100)


def downloaded(me: Owner, version: Version, kind: str, folder: Path) -> Path:
    reply = weights(me, version, kind)
    assert reply.status_code == 200, reply.text
    assert reply.headers["etag"] == f'"{hashlib.sha256(reply.content).hexdigest()}"'
    path = folder / reply.headers["content-disposition"].partition('"')[2].rstrip('"')
    path.write_bytes(reply.content)
    return path


def predicted(me: Owner, case: Case) -> Tensor:
    """[N, C] by the service."""
    body = {"instances": case.instances, "top_k": 3}
    reply = me.client.post("/v1/models/m/predict", json=body).json()
    assert "predictions" in reply, reply
    if case.described.task == "regression":
        return torch.tensor([[one["value"]] for one in reply["predictions"]])
    by_index = [{one["index"]: one["score"] for one in row["top"]} for row in reply["predictions"]]
    return torch.tensor([[row[index] for index in range(3)] for row in by_index])


def answers_of(kind: str, path: Path, case: Case, inputs: list[Tensor]) -> Tensor:
    match kind:
        case "safetensors":
            net = case.make()
            net.load_state_dict(load_file(path), strict=True)
            with torch.inference_mode():
                return case.read(net.eval()(*inputs))
        case "onnx":
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            fed = {port.name: part.numpy() for port, part in zip(session.get_inputs(), inputs, strict=True)}
            return torch.from_numpy(session.run(None, fed)[0])
        case _:
            answers: Tensor = torch.export.load(path).module()(*inputs)
            return answers.detach()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.deep] * ((name, kind) in SMALL_ONNX))
        for name in CASES
        for kind in FORMATS
    ],
)
def test_a_foreign_reader_answers_as_predict_does_for_any_number_of_rows(
    service: RunningService, me: Owner, tmp_path: Path, name: str, kind: str
) -> None:
    case = CASES[name]()
    path = downloaded(me, register(me, service.settings, case), kind, tmp_path)
    expected_NC = predicted(me, case)
    for num_rows in (1, 2, 5):
        inputs = [part[:num_rows] for part in case.inputs]
        came_NC = answers_of(kind, path, case, inputs)
        assert came_NC.shape == expected_NC[:num_rows].shape
        assert came_NC.double() == pytest.approx(expected_NC[:num_rows].double(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "torch_export"])
def test_the_file_says_what_goes_in_and_what_the_answers_mean(
    service: RunningService, me: Owner, tmp_path: Path, kind: str
) -> None:
    version = register(me, service.settings, cnn_with_batch_norm())
    header = header_of(kind, downloaded(me, version, kind, tmp_path))
    assert says_all(header, version)
    assert header.get("format") == ("pt" if kind == "safetensors" else None)


def test_the_script_of_the_page_answers_as_predict_does_and_onnx_says_as_much(
    service: RunningService,
    me: Owner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = cnn_with_batch_norm()
    version = register(me, service.settings, case)
    downloaded(me, version, "onnx", tmp_path).rename(tmp_path / "digits.onnx")
    assert says_all(header_of("onnx", tmp_path / "digits.onnx"), version)
    session = onnxruntime.InferenceSession(tmp_path / "digits.onnx", providers=["CPUExecutionProvider"])
    assert [(port.name, port.shape) for port in session.get_inputs()] == [("input", ["batch", 1, 8, 8])]
    assert [(port.name, port.shape) for port in session.get_outputs()] == [("scores", ["batch", 3])]

    picture = base64.b64decode(case.described.golden[0].instance)
    (tmp_path / "seven.png").write_bytes(picture)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (script,) = (block for block in blocks if "onnxruntime" in block)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(script, {})
    said = capsys.readouterr().out.splitlines()
    reply = me.client.post("/v1/models/m/predict", content=picture, headers={"Content-Type": "image/png"})
    assert reply.json()["predictions"][0]["label"] in said


def says_all(header: dict[str, str], version: Version) -> bool:
    assert header["modelyard.model"] == f"m@{version.version}"
    assert header["modelyard.checkpoint"] == version.checkpoint_id
    assert json.loads(header["modelyard.classes"]) == ["a", "b", "c"]
    assert json.loads(header["modelyard.inputs"]) == [
        {"name": "input", "dtype": "float32", "shape": [-1, 1, 8, 8]}
    ]
    assert json.loads(header["modelyard.outputs"]) == [
        {"name": "scores", "dtype": "float32", "shape": [-1, 3]}
    ]
    assert [one["type"] for one in json.loads(header["modelyard.transforms"])] == ["ToDtype", "Normalize"]
    assert json.loads(header["modelyard.readout"]) == {"activation": "softmax"}
    return True


def header_of(kind: str, path: Path) -> dict[str, str]:
    match kind:
        case "safetensors":
            with safe_open(path, framework="pt") as file:
                return dict(file.metadata())
        case "onnx":
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            return dict(session.get_modelmeta().custom_metadata_map)
        case _:
            extra = {"modelyard.json": ""}
            torch.export.load(path, extra_files=extra)
            return dict(json.loads(extra["modelyard.json"]))


@pytest.mark.parametrize("make", [lstm_text, table])
def test_a_table_s_file_says_how_its_columns_become_the_input(
    service: RunningService, me: Owner, tmp_path: Path, make: Any
) -> None:
    case = make()
    path = downloaded(me, register(me, service.settings, case), "safetensors", tmp_path)
    header = header_of("safetensors", path)
    assert json.loads(header["modelyard.columns"]) == case.described.inputs
    assert [one["name"] for one in json.loads(header["modelyard.prepare"])] == list(
        case.described.inputs.popitem()[1]
    )


def test_a_file_is_made_once_and_comes_in_ranges(
    service: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[str] = []
    real = exporter.Child

    def counting(*args: Any) -> Any:
        orders.append("child")
        return real(*args)

    monkeypatch.setattr(exporter, "Child", counting)
    version = register(me, service.settings, mlp())
    replies: list[httpx2.Response] = []

    def ask() -> None:
        with service.client(me.key) as client:
            url = f"/v1/checkpoints/{version.checkpoint_id}/weights?format=safetensors"
            replies.append(client.get(url))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = weights(me, version, "safetensors")
    assert orders == ["child"]
    assert {reply.content for reply in replies} == {whole.content}
    size = len(whole.content)
    parts = [weights(me, version, "safetensors", Range=f"bytes={span}") for span in ("0-99", "100-")]
    assert [part.status_code for part in parts] == [206, 206]
    assert [part.headers["content-range"] for part in parts] == [
        f"bytes 0-99/{size}",
        f"bytes 100-{size - 1}/{size}",
    ]
    assert b"".join(part.content for part in parts) == whole.content
    again = weights(me, version, "safetensors", **{"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_checkpoint_s_own_weights_are_the_version_s(service: RunningService, me: Owner) -> None:
    version = register(me, service.settings, mlp())
    alike = [me.client.get(f"/v1/models/m/versions/1/weights{query}").content for query in ("", "?format=pt")]
    alike.append(me.client.get(f"/v1/checkpoints/{version.checkpoint_id}/weights").content)
    assert len(alike[0]) > 0
    assert alike == [alike[0]] * 3


def test_a_format_that_there_is_none_of_is_422_and_names_those_that_are(
    service: RunningService, me: Owner
) -> None:
    version = register(me, service.settings, mlp())
    reply = weights(me, version, "keras")
    assert reply.status_code == 422
    assert "'format'" in reply.json()["detail"]
    assert "pt, safetensors, onnx, torch_export" in reply.json()["detail"]


@pytest.mark.parametrize("kind", ["safetensors", "torch_export"])
def test_a_file_that_does_not_give_the_golden_answers_is_not_offered(
    service: RunningService, me: Owner, kind: str
) -> None:
    version = register(me, service.settings, off_by(mlp(), 0.01))
    reply = weights(me, version, kind)
    assert (reply.status_code, reply.json()["code"]) == (422, "export_differs")
    assert "0.0001 is allowed" in reply.json()["detail"]
    assert stored.find(storage_of(service), *name_of(version, kind)) is None


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_without_golden_samples_is_409_and_its_tensors_come_all_the_same(
    service: RunningService, me: Owner, tmp_path: Path, kind: str
) -> None:
    rejected = register(me, service.settings, mlp(), state="rejected")
    assert weights(me, rejected, kind).json()["code"] == "version_not_ready"
    with me.database.write() as session:
        alone = session.get_one(Checkpoint, rejected.checkpoint_id)
        session.delete(session.get_one(Version, rejected.id))
        session.commit()
    url = f"/v1/checkpoints/{alone.id}/weights"
    reply = me.client.get(url, params={"format": kind})
    assert (reply.status_code, reply.json()["code"]) == (409, "no_version")
    assert "pt or safetensors" in reply.json()["detail"]
    (tmp_path / "w").write_bytes(me.client.get(url, params={"format": "safetensors"}).content)
    assert load_file(tmp_path / "w").keys() == mlp().net.state_dict().keys()


async def test_weights_that_were_collected_are_410_and_their_exports_go(
    service: RunningService, me: Owner
) -> None:
    kept, collected = (register(me, service.settings, mlp()) for _ in range(2))
    for version in (kept, collected):
        assert weights(me, version, "safetensors").status_code == 200
    with me.database.write() as session:
        session.execute(checkpoints.set_checkpoint_state(collected.checkpoint_id, "collected"))
        session.commit()
    assert weights(me, collected, "safetensors").status_code == 410
    assert weights(me, collected, "onnx").status_code == 410
    storage, database = storage_of(service), open_async_database(service.settings.resolved_database_url())
    try:
        await collect_exports(database, storage)
    finally:
        await database.close()
    assert stored.find(storage, *name_of(collected, "safetensors")) is None
    assert stored.find(storage, *name_of(kept, "safetensors")) is not None
    assert weights(me, kept, "safetensors").status_code == 200


def test_a_deleted_version_s_exports_go_and_its_checkpoint_stays(service: RunningService, me: Owner) -> None:
    version = register(me, service.settings, mlp())
    assert weights(me, version, "safetensors").status_code == 200
    assert me.client.delete("/v1/models/m/versions/1").status_code == 204
    assert weights(me, version, "safetensors").status_code == 404
    assert stored.find(storage_of(service), *name_of(version, "safetensors")) is None
    url = f"/v1/checkpoints/{version.checkpoint_id}/weights"
    assert me.client.get(url).status_code == 200
    assert me.client.get(url, params={"format": "safetensors"}).status_code == 200
    assert me.client.get(url, params={"format": "onnx"}).json()["code"] == "no_version"


def test_without_the_extra_onnx_is_422_and_names_it(
    service: RunningService, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "EXTRA", ("onnx", "a_package_that_nobody_has"))
    reply = weights(me, register(me, service.settings, mlp()), "onnx")
    assert (reply.status_code, reply.json()["code"]) == (422, "extra_missing")
    assert "lacks a_package_that_nobody_has" in reply.json()["detail"]
    assert "modelyard[server,export]" in reply.json()["detail"]


def test_another_owner_s_weights_are_404(service: RunningService, me: Owner) -> None:
    version = register(me, service.settings, mlp())
    with service.owner() as other:
        assert weights(other, version, "onnx").status_code == 404
        url = f"/v1/checkpoints/{version.checkpoint_id}/weights?format=safetensors"
        assert other.client.get(url).status_code == 404


def test_damaged_weights_are_never_exported(service: RunningService, me: Owner) -> None:
    version = register(me, service.settings, mlp())
    path = service.settings.resolved_home() / "artifacts" / version.id / "weights.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reply = weights(me, version, "safetensors")
    assert (reply.status_code, reply.json()["code"]) == (500, "version_damaged")


def name_of(version: Version, kind: str) -> Any:
    return version.checkpoint_id, version.id, kind


def storage_of(service: RunningService) -> Any:
    return open_storage(service.settings.resolved_storage_url(), service.settings.scratch())
