"""Models, aliases and predictions; the numbers are checked against plain torch."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from core.db.models import Version
from service.inference import files
from tests import described
from tests.running_service import Owner, RunningService

ROWS = [[0.1, -2.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1.0]]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 3))


def _scores(net: nn.Module) -> list[list[float]]:
    with torch.inference_mode():
        return net(torch.tensor(ROWS)).softmax(dim=1).tolist()  # type: ignore[no-any-return]  # a tensor's list


def _predict(me: Owner, model: str = "m", **body: Any) -> Any:
    return me.client.post(f"/v1/models/{model}/predict", json={"instances": ROWS, **body})


def test_predictions_are_those_of_plain_torch_in_order(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    me.version(service.settings, net)
    reply = _predict(me, top_k=3)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["model"], body["version"]) == ("m", 1)
    for prediction, scores in zip(body["predictions"], _scores(net), strict=True):
        best = max(range(3), key=scores.__getitem__)
        assert (prediction["index"], prediction["label"]) == (best, "abc"[best])
        assert prediction["score"] == pytest.approx(scores[best], abs=1e-6)
        by_label = {one["label"]: one["score"] for one in prediction["top"]}
        assert [by_label[label] for label in "abc"] == pytest.approx(scores, abs=1e-6)


def test_a_bad_row_holds_its_error_and_the_others_their_answer(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    me.version(service.settings, net)
    body = me.client.post("/v1/models/m/predict", json={"instances": [ROWS[0], [1], "x", ROWS[1]]}).json()
    assert ["error" in one for one in body["predictions"]] == [False, True, True, False]
    assert body["predictions"][1]["error"]["status"] == 422


def test_the_alias_production_is_the_default_else_the_newest(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    for _ in range(3):
        me.version(service.settings, net)
    assert _predict(me).json()["version"] == 3
    assert me.client.put("/v1/models/m/aliases/production", json={"version": 2}).status_code == 200
    assert _predict(me).json()["version"] == 2
    assert _predict(me, "m@latest").json()["version"] == 3
    assert _predict(me, "m@1").json()["version"] == 1
    assert _predict(me, "m@production").json()["version"] == 2
    assert _predict(me, "m@9").status_code == 404
    assert _predict(me, "m@staging").status_code == 404
    assert _predict(me, "m@").status_code == 404
    assert me.client.delete("/v1/models/m/aliases/production").status_code == 204
    assert _predict(me).json()["version"] == 3


def test_a_rejected_version_does_not_predict(service: RunningService, me: Owner, net: nn.Module) -> None:
    me.version(service.settings, net, state="rejected")
    assert _predict(me, "m@1").status_code == 409
    assert (_predict(me).status_code, _predict(me).json()["code"]) == (409, "no_ready_version")
    assert me.client.put("/v1/models/m/aliases/a", json={"version": 1}).status_code == 409
    assert me.client.get("/v1/models/m").json()["latest"] is None


def test_what_is_no_prediction_request_is_refused(service: RunningService, me: Owner, net: nn.Module) -> None:
    me.version(service.settings, net)
    path = "/v1/models/m/predict"
    assert _predict(me, "unknown").status_code == 404
    assert me.client.post(path, content=b"a,b", headers={"Content-Type": "text/plain"}).status_code == 415
    assert me.client.post(path, content=b"{", headers=JSON).status_code == 400
    deep = b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert me.client.post(path, content=deep, headers=JSON).status_code == 400
    image = me.client.post(path, content=b"no image", headers={"Content-Type": "image/png"})
    assert image.status_code == 422
    wrong = me.client.post(path, json={"instances": [1], "top_k": "1"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/top_k")
    assert me.client.post(path, json={"instances": [1], "explain": 1}).status_code == 422
    assert me.client.post(path, json={"instances": []}).status_code == 422


def test_models_and_versions_are_listed(service: RunningService, me: Owner, net: nn.Module) -> None:
    for _ in range(3):
        me.version(service.settings, net)
    me.client.put("/v1/models/m/aliases/production", json={"version": 2})
    (model,) = me.client.get("/v1/models").json()["items"]
    assert model | {"loaded": []} == me.client.get("/v1/models/m").json()
    assert (model["name"], model["latest"], model["aliases"]) == ("m", 3, {"production": 2})
    first = me.client.get("/v1/models/m/versions?limit=2").json()
    second = me.client.get("/v1/models/m/versions", params={"limit": 2, "after": first["next"]}).json()
    versions = first["items"] + second["items"]
    assert [(one["version"], one["aliases"]) for one in versions] == [(3, []), (2, ["production"]), (1, [])]
    one = me.client.get("/v1/models/m/versions/2").json()
    assert one == versions[1]
    assert one["lineage"]["dataset"] == "d"
    assert me.client.get("/v1/models/m/versions/4").status_code == 404
    assert me.client.get("/v1/models/none/versions").status_code == 404


def test_a_model_says_which_of_its_versions_are_in_memory_and_unloads_them(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    for _ in range(3):
        me.version(service.settings, net)
    nothing = {"waiting_rows": 0, "in_flight_rows": 0}
    for version in (1, 3):
        assert _predict(me, f"m@{version}").status_code == 200
    in_memory = [{"version": v, "state": "loaded", "bytes": 4 * (4 * 3 + 3), **nothing} for v in (3, 1)]
    assert me.client.get("/v1/models/m").json()["loaded"] == in_memory
    gone = me.client.post("/v1/models/m/unload").json()
    assert gone.pop("returned_bytes") >= 0
    assert gone == {"model": "m", "versions": [3, 1], "bytes": 2 * 4 * (4 * 3 + 3)}
    assert me.client.get("/v1/models/m").json()["loaded"] == []
    assert me.client.post("/v1/models/m/unload").json()["versions"] == []
    assert _predict(me, "m@3").status_code == 200
    assert [one["version"] for one in me.client.get("/v1/models/m").json()["loaded"]] == [3]
    assert me.client.post("/v1/models/none/unload").status_code == 404


def test_nobody_sees_or_unloads_the_model_of_another(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    me.version(service.settings, net)
    assert _predict(me).status_code == 200
    with service.owner("read") as other, service.owner("predict") as third:
        assert other.client.get("/v1/models/m").status_code == 404
        assert other.client.post("/v1/models/m/unload").status_code == 403
        assert third.client.post("/v1/models/m/unload").status_code == 404
    assert len(me.client.get("/v1/models/m").json()["loaded"]) == 1


def test_a_large_model_answers_from_its_file_and_unloading_it_gives_that_back(
    service: RunningService, me: Owner
) -> None:
    size, width = 4 * 8_000_004, 1_000_000
    manifest, _ = described.arrays()
    layers = [{"type": "Linear", "out_features": width}, {"type": "Linear", "out_features": 4}]
    spec = {
        "type": "Sequential",
        "layers": [layers[0] | {"in_features": 3}, layers[1] | {"in_features": width}],
    }
    wide = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 4))
    me.version(service.settings, wide, described=replace(manifest, model=spec))
    ask = {"instances": [[1.0, 2.0, 3.0]]}
    first = me.client.post("/v1/models/m/predict", json=ask).json()
    assert me.client.get("/v1/models/m").json()["loaded"][0]["bytes"] == size
    for path in (service.settings.resolved_home() / "artifacts").rglob("weights.pt"):
        if path.stat().st_size > size:
            assert str(path) in Path("/proc/self/maps").read_text()
            path.unlink()
    assert me.client.post("/v1/models/m/predict", json=ask).json() == first
    gone = me.client.post("/v1/models/m/unload").json()
    assert gone["bytes"] == size
    assert gone["returned_bytes"] > size / 2
    assert me.client.post("/v1/models/m/predict", json=ask).status_code == 410


@pytest.mark.parametrize("alias", ["latest", "best", "12", "UPPER", "-a", "x" * 64])
def test_an_alias_that_means_something_else_is_422(
    service: RunningService, me: Owner, net: nn.Module, alias: str
) -> None:
    me.version(service.settings, net)
    reply = me.client.put(f"/v1/models/m/aliases/{alias}", json={"version": 1})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_alias")


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, None, 2**40, 2**70])
def test_an_alias_for_no_version_is_422_and_points_at_it(
    service: RunningService, me: Owner, net: nn.Module, version: object
) -> None:
    me.version(service.settings, net)
    reply = me.client.put("/v1/models/m/aliases/a", json={"version": version})
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["pointer"] == "/version"


def test_a_job_that_trained_a_version_is_not_deleted(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    me.version(service.settings, net)
    job_id = me.client.get("/v1/models/m/versions/1").json()["lineage"]["job"]
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    assert me.client.delete(f"/v1/jobs/{job_id}").json()["code"] == "job_in_use"


def test_many_callers_load_a_model_once(
    service: RunningService, me: Owner, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real = files.Predictor.load

    def counting(*args: Any) -> Any:
        loads.append("load")
        return real(*args)

    monkeypatch.setattr(files.Predictor, "load", counting)
    me.version(service.settings, net)
    statuses: list[int] = []

    def ask() -> None:
        with service.client(me.key) as client:
            statuses.append(client.post("/v1/models/m/predict", json={"instances": ROWS}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert loads == ["load"]


@pytest.mark.parametrize("what", ["weights.pt", "manifest.json"])
def test_files_that_are_not_what_was_registered_never_predict(
    service: RunningService, me: Owner, net: nn.Module, what: str
) -> None:
    me.version(service.settings, net)
    with me.database.read() as session:
        version_id = session.query(Version).filter_by(owner=me.name).one().id
    path = service.settings.resolved_home() / "artifacts" / version_id / what
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reply = _predict(me)
    assert (reply.status_code, reply.json()["code"]) == (500, "version_damaged")
    path.unlink()
    assert _predict(me).status_code == 410
