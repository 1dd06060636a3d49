"""What models there are, in the Open Inference Protocol, by NVIDIA's client, sync and aio."""

from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

from service.inference.batcher import MAX_ROWS
from tests import described
from tests.triton import MODELS, ROWS, Zoo, tensor


def entry(triton: Any, model: str, version: int = 1) -> dict[str, Any]:
    index = triton.get_model_repository_index()
    return next(one for one in index if (one["name"], one["version"]) == (model, str(version)))


def counts(triton: Any, model: str) -> dict[str, Any]:
    (stats,) = triton.get_inference_statistics(model, "1")["model_stats"]
    return dict(stats)


def test_the_server_is_live_and_ready_to_everybody(anonymous: Any) -> None:
    assert anonymous.is_server_live() is True
    assert anonymous.is_server_ready() is True


def test_the_server_says_which_extensions_it_speaks(triton: Any) -> None:
    metadata = triton.get_server_metadata()
    assert set(metadata) == {"name", "version", "extensions"}
    assert metadata["name"] == "modelyard"
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= {
        *metadata["extensions"]
    }


def test_a_model_is_ready_where_it_would_answer(triton: Any, zoo: Zoo) -> None:
    assert triton.is_model_ready("arrays") is True
    assert triton.is_model_ready("arrays", "2") is True
    assert triton.is_model_ready("arrays", "production") is True
    assert triton.is_model_ready("arrays", "9") is False
    assert triton.is_model_ready("nobody") is False
    # The client leaves a slash of a name as it is: there is no such route.
    assert triton.is_model_ready("a b/c") is False


def test_metadata_is_the_signature_of_the_version(triton: Any, zoo: Zoo) -> None:
    metadata = triton.get_model_metadata("arrays", "production")
    assert set(metadata) == {"name", "versions", "platform", "inputs", "outputs"}
    assert (metadata["name"], metadata["versions"]) == ("arrays", ["1", "2"])
    assert metadata["platform"].startswith("pytorch")
    for name in MODELS:
        metadata = triton.get_model_metadata(name)
        version = zoo.owner.client.get(f"/v1/models/{name}/versions/1").json()
        signature = {"inputs": metadata["inputs"], "outputs": metadata["outputs"]}
        assert signature == version["signature"]


def test_the_configuration_has_dims_without_the_batch(triton: Any) -> None:
    config = triton.get_model_config("table")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("table", "pytorch", 10_000)
    assert config["input"] == [
        {"name": "age", "data_type": "TYPE_FP64", "dims": []},
        {"name": "city", "data_type": "TYPE_STRING", "dims": []},
        {"name": "vip", "data_type": "TYPE_BOOL", "dims": []},
    ]
    assert triton.get_model_config("images", "1")["input"][0]["dims"] == [3, -1, -1]


def test_a_model_is_unloaded_and_loaded_and_the_index_says_so(triton: Any, zoo: Zoo) -> None:
    triton.load_model("regressor")
    assert entry(triton, "regressor") == {"name": "regressor", "version": "1", "state": "READY", "reason": ""}
    before = zoo.service.server.config.app.parts.models.size_bytes
    triton.unload_model("regressor")
    assert zoo.service.server.config.app.parts.models.size_bytes == before - 4 * (3 * 2 + 2)
    assert (entry(triton, "regressor")["state"], entry(triton, "regressor")["reason"]) == (
        "UNAVAILABLE",
        "unloaded",
    )
    assert triton.is_model_ready("regressor") is False
    triton.load_model("regressor")
    triton.load_model("regressor")
    assert triton.is_model_ready("regressor") is True


def test_a_request_loads_what_was_unloaded(triton: Any) -> None:
    triton.unload_model("regressor", unload_dependents=True)
    triton.infer("regressor", [tensor("input", ROWS)])
    assert entry(triton, "regressor")["state"] == "READY"


def test_the_index_can_be_of_what_is_ready_alone(zoo: Zoo) -> None:
    zoo.owner.client.post("/v2/repository/models/text/unload", json={})
    ready = zoo.owner.client.post("/v2/repository/index", json={"ready": True}).json()
    assert {one["state"] for one in ready} == {"READY"}
    assert "text" not in {one["name"] for one in ready}
    assert "text" in {one["name"] for one in zoo.owner.client.post("/v2/repository/index").json()}


def test_a_load_that_would_change_the_model_is_refused(triton: Any) -> None:
    with pytest.raises(InferenceServerException, match="leave out config") as caught:
        triton.load_model("arrays", config="{}")
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match=r"file:1/model\.pt"):
        triton.load_model("arrays", config="{}", files={"file:1/model.pt": b"evil"})
    for call in (triton.load_model, triton.unload_model):
        with pytest.raises(InferenceServerException, match="no model") as caught:
            call("nobody")
        assert caught.value.status() == "404"


def test_a_version_that_failed_its_check_is_listed_and_never_ready(triton: Any, zoo: Zoo) -> None:
    manifest, net = described.arrays()
    zoo.owner.version(zoo.service.settings, net, model="bad", described=manifest, state="rejected")
    assert entry(triton, "bad")["state"] == "UNAVAILABLE"
    assert triton.is_model_ready("bad") is False
    with pytest.raises(InferenceServerException) as caught:
        triton.infer("bad", [tensor("input", ROWS)], model_version="1")
    assert caught.value.status() == "400"


def test_statistics_count_rows_and_forwards(triton: Any) -> None:
    before = counts(triton, "text")
    triton.infer("text", [tensor("text", np.array([b"a", b"b", b"c"], dtype=np.object_))])
    triton.infer("text", [tensor("text", np.array([b"x"] * (MAX_ROWS + 1), dtype=np.object_))])
    with pytest.raises(InferenceServerException):
        triton.infer("text", [tensor("text", np.array([b"\xff"], dtype=np.object_))])
    after = counts(triton, "text")

    def risen(name: str) -> int:
        return int(after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"])

    assert after["inference_count"] - before["inference_count"] == 3 + MAX_ROWS + 1
    assert after["execution_count"] - before["execution_count"] == 3  # the second request took two
    assert (risen("success"), risen("fail"), risen("queue"), risen("compute_infer")) == (2, 1, 2, 2)
    stats = after["inference_stats"]
    parts = sum(stats[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts < stats["success"]["ns"]
    assert after["last_inference"] >= before["last_inference"]
    batches = {one["batch_size"]: one["compute_infer"]["count"] for one in after["batch_stats"]}
    assert {1, 3, MAX_ROWS} <= set(batches)
    assert sum(batches.values()) == after["execution_count"]


def test_statistics_come_of_all_models_of_one_and_of_one_version(triton: Any) -> None:
    everything = triton.get_inference_statistics()["model_stats"]
    assert set(MODELS) <= {one["name"] for one in everything}
    of_one = triton.get_inference_statistics("arrays")["model_stats"]
    assert {(one["name"], one["version"]) for one in of_one} == {("arrays", "1"), ("arrays", "2")}
    with pytest.raises(InferenceServerException, match="no model"):
        triton.get_inference_statistics("nobody")


def test_another_owner_sees_none_of_it(zoo: Zoo) -> None:
    with zoo.service.owner() as other:
        assert other.client.post("/v2/repository/index").json() == []
        assert other.client.get("/v2/models/stats").json() == {"model_stats": []}
        for path in ("/v2/models/arrays", "/v2/models/arrays/ready", "/v2/models/arrays/stats"):
            assert other.client.get(path).status_code == 404
        assert other.client.post("/v2/repository/models/arrays/unload", json={}).status_code == 404


def test_the_key_may_be_a_basic_password(zoo: Zoo) -> None:
    with InferenceServerClient(zoo.address) as client:
        client.register_plugin(BasicAuth("anybody", zoo.owner.key))
        assert client.infer("arrays", [tensor("input", ROWS)]).as_numpy("scores").shape == (2, 4)
        client.unregister_plugin()
        client.register_plugin(BasicAuth("anybody", "mdy_wrong"))
        with pytest.raises(InferenceServerException, match="no key of ours") as caught:
            client.get_server_metadata()
        assert caught.value.status() == "401"
    # Elsewhere a Basic password is no key.
    assert zoo.owner.client.get("/v1/models", auth=("anybody", zoo.owner.key)).status_code == 401


@pytest.mark.parametrize(
    ("scope", "taken", "refused"),
    [
        ("read", ["/v2", "/v2/models/arrays", "/v2/models/stats"], ["/v2/repository/models/arrays/load"]),
        ("predict", ["/v2/repository/models/arrays/load"], ["/v2/models/arrays", "/v2/repository/index"]),
    ],
)
def test_a_key_does_what_its_scopes_say(zoo: Zoo, scope: str, taken: list[str], refused: list[str]) -> None:
    with zoo.service.owner(scope) as limited:
        for paths, is_taken in ((taken, True), (refused, False)):
            for path in paths:
                reply = limited.client.request("POST" if "repository" in path else "GET", path)
                assert (reply.status_code != 403) is is_taken, (path, reply.text)
                assert is_taken or isinstance(reply.json()["error"], str)
