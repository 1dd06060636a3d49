"""torchvision's architectures by name: their sizes, their layers in a plan, pretrained weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from core.nets.build import build_net
from core.nets.components.architectures import NAMES
from core.nets.plan import Checked, Source, check
from core.nets.pretrained import WeightsMismatch, load_pretrained
from tests.manifests import images

#: Smaller images leave nothing after their last pooling, or don't divide into their windows.
SIDES = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 224}


def plan_of(model: dict[str, Any], side: int = 64) -> Checked:
    manifest = images(channels=3, sizes=[(side, side, 40)], splits={"train": 40})
    spec = {"name": "a", "dataset": "d", "model": model, "trainer": {"batch_size": 2}}
    return check(spec, Source("d@1", manifest))


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_has_as_many_parameters_as_torchvisions_own(name: str) -> None:
    plan = plan_of({"type": name}, SIDES.get(name, 64)).plan
    keywords: dict[str, Any] = {"num_classes": 10}
    if name in ("googlenet", "inception_v3"):
        keywords |= {"aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        keywords["image_size"] = SIDES.get(name, 64)
    # The widths of a RegNet are computed with numbers, which meta has none of.
    with torch.device("cpu" if name.startswith("regnet") else "meta"), torch.no_grad():
        theirs = None if name.startswith("regnet") else models.get_model(name, **keywords)
    if theirs is None:
        published = models.get_model_weights(name).DEFAULT.meta["num_params"]
        per_class = plan.layers[-1].parameters // 10
        assert plan.parameters == published - 990 * per_class
        return
    assert plan.parameters == sum(p.numel() for p in theirs.parameters())
    assert sum(layer.parameters for layer in plan.layers) <= plan.parameters
    assert plan.layers[-1].output_shape[-1] == 10 or plan.layers[-1].output_shape[1] == 10


def test_a_plan_lists_the_layers_inside_an_architecture() -> None:
    layers = plan_of({"type": "resnet18"}).plan.layers
    by_path = {layer.path: layer for layer in layers}
    assert by_path["layer1.0.conv1"].type == "Conv2d"
    assert by_path["layer1.0.conv1"].output_shape == [2, 64, 16, 16]
    assert by_path["fc"].output_shape == [2, 10]
    assert sum(layer.parameters for layer in layers) == 11_181_642  # 11,689,512 with 1,000 classes


def resnet18(**keywords: Any) -> dict[str, Any]:
    model: dict[str, Any] = plan_of({"type": "resnet18", **keywords}).spec["model"]
    return model


def saved_weights(tmp_path: Path, num_classes: int) -> tuple[dict[str, torch.Tensor], Path]:
    torch.manual_seed(5)
    state = models.resnet18(num_classes=num_classes).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    return state, tmp_path / "weights.pt"


def test_uploaded_weights_are_loaded_and_a_head_of_another_size_stays_as_it_was(tmp_path: Path) -> None:
    state, path = saved_weights(tmp_path, num_classes=1000)
    model = resnet18(weights={"upload": "up_1"})
    torch.manual_seed(0)
    net = build_net(model)
    before = net.state_dict()["fc.weight"].clone()
    kept = load_pretrained(net, model, {"up_1": path}, tmp_path)
    assert kept == ["fc.weight", "fc.bias"]
    loaded = net.state_dict()
    assert torch.equal(loaded["fc.weight"], before)
    for name in state:
        if not name.startswith("fc."):
            assert torch.equal(loaded[name], state[name]), name


def test_weights_inside_a_sequential_find_their_module(tmp_path: Path) -> None:
    state, path = saved_weights(tmp_path, num_classes=10)
    inner = {"type": "resnet18", "num_classes": 10, "weights": {"upload": "up_1"}}
    model = plan_of({"type": "Sequential", "layers": [inner, {"type": "ReLU"}]}).spec["model"]
    net = build_net(model)
    assert load_pretrained(net, model, {"up_1": path}, tmp_path) == []
    assert torch.equal(net.state_dict()["0.fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    "change", ["missing", "extra", "shape", "garbage", "pickle", "list", "number", "sparse", "meta"]
)
def test_weights_of_something_else_are_refused_with_what_differs(tmp_path: Path, change: str) -> None:
    state, path = saved_weights(tmp_path, num_classes=10)
    match change:
        case "missing":
            del state["conv1.weight"]
        case "extra":
            state["more.weight"] = torch.zeros(1)
        case "shape":
            state["conv1.weight"] = torch.zeros(64, 3, 5, 5)
        case "number":
            state[1] = torch.zeros(1)  # type: ignore[index]  # names are strings
        case "sparse":
            state["fc.weight"] = state["fc.weight"].to_sparse()
        case "meta":
            state["fc.weight"] = state["fc.weight"].to("meta")
    torch.save([1, 2] if change == "list" else state, path)
    if change == "garbage":
        path.write_bytes(b"PK no zip at all")
    if change == "pickle":
        path.write_bytes(b"\x80\x02a.")
    model = resnet18(weights={"upload": "up_1"})
    word = {"missing": "conv1.weight", "extra": "more.weight", "shape": "5, 5"}.get(change, "state_dict")
    with pytest.raises(WeightsMismatch, match=word):
        load_pretrained(build_net(model), model, {"up_1": path}, tmp_path)


def test_default_weights_come_from_the_cache_where_they_lie_there(tmp_path: Path) -> None:
    state, path = saved_weights(tmp_path, num_classes=1000)
    name = models.ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    path.rename(tmp_path / "hub" / "checkpoints" / name)
    model = resnet18(weights="DEFAULT")
    net = build_net(model)
    load_pretrained(net, model, {}, tmp_path)
    assert torch.equal(net.state_dict()["conv1.weight"], state["conv1.weight"])


def test_default_weights_without_a_network_are_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens at the discard port
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    model = resnet18(weights="DEFAULT")
    with pytest.raises(WeightsMismatch, match="needs the network") as caught:
        load_pretrained(build_net(model), model, {}, tmp_path)
    assert "resnet18-" in str(caught.value)
