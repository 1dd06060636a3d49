"""What a package must keep to for its layers, transforms and losses to be taken."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from core.errors import Invalid, Unavailable
from core.nets import plugins, registry
from core.nets.build import build_net
from core.nets.plan import Source, check
from core.nets.plugins import PluginError, load
from tests import manifests
from tests.plugins import install_example, on_path, write_package

IMPORTS = "from typing import Literal\nimport torch\nfrom torch import Tensor, nn\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_example(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def example(site: Path) -> Iterator[None]:
    with on_path(site):
        yield


def spec(layer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    layers = [{"type": "Flatten"}, {"type": "Linear", "out_features": 16}, layer]
    model = {"type": "Sequential", "layers": [*layers, {"type": "Linear", "out_features": 10}]}
    return {"name": "a", "dataset": "d", "model": model, **fields}


def planned(raw: dict[str, Any]) -> Any:
    return check(raw, Source("d@1", manifests.images()))


def refusal(folder: Path, group: str, name: str, body: str) -> str:
    """Why a package with one class is refused."""
    entry = f"[modelyard.{group}]\n{name} = odd_package:{name}\n"
    write_package(folder, "odd-package", entry, f"{IMPORTS}\nclass {name}(nn.Module):\n{body}")
    with on_path(folder), pytest.raises(PluginError) as caught:
        load("odd-package")
    return str(caught.value)


def test_nothing_of_a_package_is_taken_or_imported_unless_the_operator_names_it(
    tmp_path: Path,
) -> None:
    code = "raise RuntimeError('imported')"
    folder = write_package(tmp_path, "rude", "[modelyard.layers]\nRude = rude:Rude\n", code)
    with on_path(folder):
        assert load("") == load("  ") == []
        assert registry.get("layer", "Rude") is None
        with pytest.raises(PluginError, match=r"layer Rude of rude==1\.0 .* RuntimeError: imported"):
            load("rude")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "setting", ["modelyard-example-plugin", " Modelyard_Example.Plugin, modelyard-example-plugin", "all"]
)
def test_a_named_package_joins_the_families_with_its_version(setting: str) -> None:
    found = {(plugin.family, plugin.name, plugin.requirement) for plugin in load(setting)}
    requirement = "modelyard-example-plugin==1.0.0"
    assert found == {
        ("layer", "SignActivation", requirement),
        ("layer", "ScaledSwish", requirement),
        ("transform", "Pixelate", requirement),
        ("loss", "FocalLoss", requirement),
    }
    assert {plugin.name for plugin in load(setting)} == {name for _, name, _ in found}
    listed = {info.type: info for info in registry.catalogue("layer")}
    assert listed["ScaledSwish"].parameters[0].name == "beta"
    assert listed["ScaledSwish"].doc.startswith("x * sigmoid(beta * x)")


def test_a_package_that_is_not_there_is_refused_with_those_that_are(site: Path) -> None:
    with on_path(site), pytest.raises(PluginError, match=r"names nope, .* do: modelyard-example-plugin"):
        load("modelyard-example-plugin, nope")


def test_without_the_plugin_its_name_is_an_unknown_type(site: Path) -> None:
    raw = spec({"type": "ScaledSwish"})
    with pytest.raises(Invalid) as caught:
        planned(raw)
    assert [error.code for error in caught.value.errors] == ["unknown_type"]
    with on_path(site):
        load("all")
        assert planned(raw).plan.layers[2].type == "ScaledSwish"
    with pytest.raises(Invalid):
        planned(raw)


@pytest.mark.usefixtures("example")
def test_a_spec_is_checked_against_the_annotations_of_a_plugin() -> None:
    load("all")
    with pytest.raises(Invalid) as caught:
        planned(spec({"type": "ScaledSwish", "beta": "high", "slope": 1}, loss={"type": "FocalLos"}))
    told = {error.pointer: error.message for error in caught.value.errors}
    assert told["/model/layers/2/beta"] == 'ScaledSwish.beta is number; "high" came.'
    assert "Its keywords are: beta" in told["/model/layers/2/slope"]
    assert 'Did you mean "FocalLoss"?' in told["/loss/type"]


@pytest.mark.usefixtures("example")
def test_a_loss_is_for_the_tasks_that_it_says() -> None:
    load("all")
    raw = spec({"type": "ReLU"}, loss={"type": "FocalLoss"}, task="regression")
    with pytest.raises(Invalid) as caught:
        planned(raw)
    assert "wrong_loss" in {error.code for error in caught.value.errors}


@pytest.mark.usefixtures("example")
def test_a_deterministic_transform_stands_in_eval_as_well() -> None:
    load("all")
    transforms = planned(spec({"type": "ReLU"}, transforms={"train": [{"type": "Pixelate"}]})).plan.transforms
    assert [component["type"] for component in transforms.eval] == ["Pixelate", "ToDtype"]


@pytest.mark.usefixtures("example")
def test_what_a_spec_uses_is_told_with_its_version_and_metadata_is_not_looked_at() -> None:
    load("all")
    raw = spec({"type": "SignActivation"}, metadata={"note": {"type": "ScaledSwish"}})
    assert plugins.used_by(planned(raw).spec) == {"SignActivation": "modelyard-example-plugin==1.0.0"}


@pytest.mark.usefixtures("example")
def test_the_hand_written_swish_has_the_gradient_of_finite_differences() -> None:
    load("all")
    layer = registry.construct("layer", {"type": "ScaledSwish", "beta": 1.7})
    x = torch.linspace(-4, 4, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    plain = registry.construct("layer", {"type": "ScaledSwish"})
    assert torch.allclose(plain(x), F.silu(x))


@pytest.mark.usefixtures("example")
def test_the_sign_passes_its_gradient_through_between_minus_one_and_one() -> None:
    load("all")
    x = torch.tensor([-2.0, -0.5, 0.0, 0.9, 3.0], requires_grad=True)
    out = registry.construct("layer", {"type": "SignActivation"})(x)
    assert out.tolist() == [-1, -1, 1, 1, 1]
    out.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


@pytest.mark.usefixtures("example")
def test_the_focal_loss_with_gamma_zero_is_cross_entropy() -> None:
    load("all")
    outputs, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    loss = registry.construct("loss", {"type": "FocalLoss", "gamma": 0.0})
    assert torch.allclose(loss(outputs, targets), F.cross_entropy(outputs, targets))


def test_a_layer_takes_as_many_inputs_as_its_forward_and_its_sizes_are_inferred(tmp_path: Path) -> None:
    code = f"""{IMPORTS}
class Gated(nn.Module):
    def __init__(self, in_features: int, out_features: int, kind: Literal["a", "b"] = "a") -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.linear(x) * gate
"""
    folder = write_package(tmp_path, "gates", "[modelyard.layers]\nGated = gates:Gated\n", code)
    nodes = [
        {"name": "flat", "type": "Flatten", "inputs": ["input"]},
        {"name": "gate", "type": "Linear", "out_features": 10, "inputs": ["flat"]},
        {"name": "out", "type": "Gated", "out_features": 10, "inputs": ["flat", "gate"]},
    ]
    graph = {"type": "Graph", "nodes": nodes, "output": "out"}
    with on_path(folder):
        load("gates")
        model = planned({"name": "a", "dataset": "d", "model": graph}).spec["model"]
        assert model["nodes"][2]["in_features"] == 784
        assert build_net(model)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        with pytest.raises(Invalid, match="Gated takes 2 inputs; 1 came"):
            planned(spec({"type": "Gated", "out_features": 10}))


@pytest.mark.parametrize(
    ("group", "name", "body", "why"),
    [
        ("layers", "Plain", "    def __init__(self, width) -> None: ...", "'width' has no annotation"),
        ("layers", "Open", "    def __init__(self, **more: int) -> None: ...", "name each keyword"),
        ("layers", "Loose", "    def __init__(self, *sizes: int) -> None: ...", "name each keyword"),
        ("layers", "Held", "    def __init__(self, net: nn.Module) -> None: ...", "no JSON value fits"),
        ("layers", "Named", "    def __init__(self, name: str) -> None: ...", "specs use the word 'name'"),
        (
            "layers",
            "Placed",
            "    def __init__(self, device: str) -> None: ...",
            "specs use the word 'device'",
        ),
        ("layers", "Odd", "    def __init__(self, width: int = 'x') -> None: ...", "signature can't be read"),
        ("layers", "Blind", "    def forward(self) -> Tensor: ...", "takes no input"),
        ("layers", "Linear", "    pass", "a plugin never takes one"),
        ("layers", "LazyLinear", "    pass", "a plugin never takes one"),
        ("layers", "Residual", "    pass", "a plugin never takes one"),
        ("layers", "resnet18", "    pass", "a plugin never takes one"),
        ("losses", "MSELoss", "    tasks = ('regression',)", "a plugin never takes one"),
        ("losses", "Vague", "    pass", "a loss's class says `tasks`"),
        ("losses", "Wrong", "    tasks = ('ranking',)", "a loss's class says `tasks`"),
        ("transforms", "Resize", "    is_random = False", "a plugin never takes one"),
        ("transforms", "Unsure", "    pass", "`is_random = True` or `is_random = False`"),
        ("transforms", "Bytes", "    is_random = False\n    takes = 'bytes'", "not 'bytes'"),
    ],
)
def test_a_class_that_breaks_a_rule_is_refused_by_name(
    tmp_path: Path, group: str, name: str, body: str, why: str
) -> None:
    told = refusal(tmp_path, group, name, body)
    noun = {"layers": "layer", "losses": "loss", "transforms": "transform"}[group]
    assert told.startswith(f"The {noun} {name} of odd-package==1.0 can't be loaded: ")
    assert why in told


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    entry = "[modelyard.layers]\nSwish = odd:swish\n"
    folder = write_package(tmp_path, "odd", entry, "def swish(x):\n    return x\n")
    with (
        on_path(folder),
        pytest.raises(PluginError, match=r"subclass of torch\.nn\.Module, and odd:swish is not"),
    ):
        load("odd")


def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    code = (
        f"{IMPORTS}\nclass Same(nn.Module):\n    def forward(self, x: Tensor) -> Tensor:\n        return x\n"
    )
    folders = [
        write_package(
            tmp_path / package, package, f"[modelyard.layers]\nSame = {package}:Same\n", code, version
        )
        for package, version in (("one", "1.0"), ("two", "2.0"))
    ]
    with on_path(*folders), pytest.raises(PluginError, match=r"(one==1|two==2)\.0 has the name already"):
        load("all")


@pytest.mark.usefixtures("example")
def test_a_job_needs_the_plugins_and_the_versions_that_it_began_with(site: Path) -> None:
    load("all")
    raw = planned(spec({"type": "ScaledSwish"})).spec
    here = {"ScaledSwish": "modelyard-example-plugin==1.0.0"}
    plugins.check(raw, here)
    plugins.check(raw, None)
    plugins.require(here)
    with pytest.raises(PluginError, match=r"began with .*==0\.9, and this worker has .*==1\.0\.0"):
        plugins.check(raw, {"ScaledSwish": "modelyard-example-plugin==0.9"})


def test_a_process_without_the_plugin_says_what_it_lacks(site: Path) -> None:
    with on_path(site):
        load("all")
        raw = planned(spec({"type": "ScaledSwish"}, loss={"type": "FocalLoss"})).spec
    with pytest.raises(PluginError, match="lacks the layer ScaledSwish, the loss FocalLoss"):
        plugins.check(raw, None)
    with pytest.raises(Unavailable, match=r"ScaledSwish of modelyard-example-plugin==1\.0\.0"):
        plugins.require({"ScaledSwish": "modelyard-example-plugin==1.0.0"})
