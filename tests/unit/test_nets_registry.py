"""The registry: torch's signatures as structs, and the errors of a component, all at once."""

import inspect
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
import torch.utils.data
from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode, v2

from core.nets import registry
from core.nets.components import FAMILIES
from core.nets.lower import describe, lift, lower, plain
from modelyard.specs import ProblemError
from tests.needs import is_newest_torch


def checked(family: str, raw: object) -> tuple[dict[str, Any] | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    return registry.check_component(family, raw, "/x", errors), errors


LISTED = [family for family in FAMILIES.values() if family.is_listed]


def test_every_component_has_the_parameters_of_its_signature() -> None:
    for home in FAMILIES.values():
        for name in home.names:
            entry = registry.get(home.name, name)
            assert entry is not None, name
            source = home.signatures.get(name, home.find(name))
            assert source is not None
            signature = inspect.signature(source).parameters
            extras = {key.split(".")[1] for key in home.extras if key.split(".")[0] in ("*", name)}
            passed = {word for word, parameter in entry.parameters.items() if parameter.is_passed}
            assert passed <= set(signature) | extras, name


def test_every_override_names_a_keyword_that_torch_has() -> None:
    for home in LISTED:
        for key in (*home.overrides, *home.left_out):
            cls, keyword = key.split(".")
            names = home.names if cls == "*" else [cls]
            sources = [home.signatures.get(name, home.find(name)) for name in names]
            assert any(keyword in inspect.signature(source).parameters for source in sources if source), key


def _classes(namespace: ModuleType, base: type) -> set[str]:
    return {
        name
        for name, member in vars(namespace).items()
        if inspect.isclass(member) and issubclass(member, base) and not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("families", "there"),
    [
        (("layer", "loss"), _classes(nn, nn.Module)),
        (("optimizer",), _classes(torch.optim, torch.optim.Optimizer)),
        (("scheduler",), _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)),
        (("transform",), _classes(v2, v2.Transform)),
        (("initializer",), {name for name in vars(nn.init) if name[-1] == "_" and name[0] != "_"}),
        (("architecture",), set(models.list_models(module=models))),
        (("sampler",), _classes(torch.utils.data, torch.utils.data.Sampler)),
    ],
)
def test_what_torch_has_is_offered_or_left_out_with_a_reason(
    families: tuple[str, ...], there: set[str]
) -> None:
    offered = {name for family in families for name in FAMILIES[family].names}
    left_out = {name for family in families for name in FAMILIES[family].absent}
    assert not offered & left_out
    assert there - offered - left_out == set(), "torch has grown: offer it, or say why not"
    for family in families:
        home = FAMILIES[family]
        gone = [name for name in home.absent if name not in there and not hasattr(home.namespace, name)]
        assert not (gone and is_newest_torch()), f"torch has dropped {gone}"


def test_a_class_that_the_installed_torch_lacks_is_absent_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.optim, "Adafactor")
    registry._entry.cache_clear()
    try:
        assert "Adafactor" not in registry.names("optimizer")
        assert "Adafactor" not in {info.type for info in registry.catalogue("optimizer")}
        component, errors = checked("optimizer", {"type": "Adafactor"})
        assert component is None
        assert f"is not in torch {torch.__version__}" in errors[0].message
    finally:
        registry._entry.cache_clear()


def test_defaults_are_those_of_the_signature_as_json_has_them() -> None:
    component, errors = checked("layer", {"type": "Conv2d", "out_channels": 8, "kernel_size": 3})
    assert not errors
    assert component == {
        "type": "Conv2d",
        "out_channels": 8,
        "kernel_size": 3,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "bias": True,
        "padding_mode": "zeros",
    }
    component, _ = checked("optimizer", {"type": "Adam", "lr": 1})
    assert component is not None
    assert component["lr"] == 1.0
    assert isinstance(component["lr"], float)
    assert component["betas"] == [0.9, 0.999]
    assert component["weight_decay"] == 0.0


def test_a_component_checked_twice_is_the_same() -> None:
    for family, raw in [
        ("layer", {"type": "MaxPool2d", "kernel_size": [2, 2]}),
        ("optimizer", {"type": "SGD"}),
        ("scheduler", {"type": "StepLR", "step_size": 3}),
        ("transform", {"type": "RandomRotation", "degrees": [-5, 5]}),
        ("loss", {"type": "CrossEntropyLoss"}),
    ]:
        once, errors = checked(family, raw)
        assert not errors
        assert checked(family, once) == (once, [])


def test_defaults_are_not_shared_between_components() -> None:
    first, _ = checked("optimizer", {"type": "Adam"})
    assert first is not None
    first["betas"].append(1)
    second, _ = checked("optimizer", {"type": "Adam"})
    assert second is not None
    assert second["betas"] == [0.9, 0.999]


def test_a_near_miss_is_told_the_name_and_the_valid_ones() -> None:
    component, errors = checked("layer", {"type": "Conv2D"})
    assert component is None
    assert [(error.pointer, error.code) for error in errors] == [("/x/type", "unknown_type")]
    assert 'Did you mean "Conv2d"?' in errors[0].message
    assert "GET /v1/components" in errors[0].message
    _, errors = checked("loss", {"type": "Huber"})
    assert "HuberLoss" in errors[0].message


def test_all_errors_of_a_component_come_at_once_each_with_its_pointer() -> None:
    _, errors = checked(
        "layer", {"type": "Conv2d", "kernal_size": 3, "stride": -1, "bias": 1, "padding": "sam"}
    )
    by_pointer = {error.pointer: error for error in errors if error.pointer != "/x"}
    assert set(by_pointer) == {"/x/kernal_size", "/x/stride", "/x/bias", "/x/padding"}
    assert 'Did you mean "kernel_size"?' in by_pointer["/x/kernal_size"].message
    assert "-1 came" in by_pointer["/x/stride"].message
    assert "Conv2d.bias is boolean; 1 came" in by_pointer["/x/bias"].message
    assert '"same" | "valid"' in by_pointer["/x/padding"].message
    missing = [error.message for error in errors if error.pointer == "/x"]
    assert len(missing) == 2
    assert '"out_channels"' in missing[0]
    assert '"kernel_size"' in missing[1]


def test_a_keyword_we_leave_out_is_refused_with_the_reason() -> None:
    _, errors = checked("layer", {"type": "Linear", "out_features": 3, "device": "cuda"})
    assert [error.pointer for error in errors] == ["/x/device"]
    assert "the trainer places the net" in errors[0].message


@pytest.mark.parametrize("raw", [None, 3, [], "Linear", {}, {"type": 3}, {"type": None}, {"types": "Linear"}])
def test_what_is_no_component_is_refused_and_does_not_raise(raw: object) -> None:
    component, errors = checked("layer", raw)
    assert component is None
    assert len(errors) == 1


def test_errors_in_nested_layers_point_at_the_layer_and_none_hides_another() -> None:
    raw = {
        "type": "Sequential",
        "layers": [
            7,
            {"type": "Linear"},
            {"type": "Sequential", "layers": [{"type": "Relu"}]},
            {"type": "ReLU"},
        ],
    }
    component, errors = checked("layer", raw)
    assert component is None
    assert [error.pointer for error in errors] == ["/x/layers/0", "/x/layers/1", "/x/layers/2/layers/0/type"]


def test_keys_are_escaped_in_pointers_as_rfc_6901_says() -> None:
    _, errors = checked("layer", {"type": "ReLU", "a/b~c": 1})
    assert errors[0].pointer == "/x/a~1b~0c"


def test_a_number_is_no_string_and_a_bool_is_no_number() -> None:
    for raw in ({"type": "SGD", "lr": "0.1"}, {"type": "SGD", "lr": True}):
        component, errors = checked("optimizer", raw)
        assert component is None
        assert [error.pointer for error in errors] == ["/x/lr"]


def test_the_catalogue_says_what_is_required_inferred_and_default() -> None:
    linear = next(info for info in registry.catalogue("layer") if info.type == "Linear")
    by_name = {parameter.name: parameter for parameter in linear.parameters}
    assert by_name["in_features"].inferred
    assert not by_name["in_features"].required
    assert by_name["out_features"].required
    assert by_name["out_features"].type == "integer >= 1"
    assert by_name["bias"].default is True
    assert linear.doc.startswith("Applies an affine linear transformation")
    assert {info.family for info in registry.catalogue()} == {family.name for family in LISTED}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "integer | null"),
        (float | torch.Tensor, "number"),
        (torch.Tensor | None, None),
        (tuple[int, int] | int, "integer | list of 2 integer"),
        (tuple[int, ...], "list of integer"),
        (tuple[int | None, int], "list of 2 (integer | null)"),
        (Literal["mean", "sum"], '"mean" | "sum"'),
        (bool, "boolean"),
        (dict[type, int] | str, "string"),
    ],
)
def test_a_torch_type_lowers_to_what_json_has(annotation: Any, words: str | None) -> None:
    kind = lower(annotation)
    assert (None if kind is None else describe(kind)) == words


def test_an_enum_lowers_to_its_spellings_and_lifts_back() -> None:
    annotation = str | InterpolationMode | int
    assert describe(lower(annotation)).startswith('"nearest" | ')
    assert lift(annotation, "bilinear") is InterpolationMode.BILINEAR
    assert plain(InterpolationMode.BILINEAR) == "bilinear"
    assert lift(torch.dtype, "float32") is torch.float32
    assert plain(torch.float32) == "float32"
    assert lift(int | tuple[int, int], [3, 3]) == (3, 3)


def test_what_is_built_carries_the_values_of_the_component() -> None:
    component, _ = checked(
        "layer", {"type": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": [3, 1]}
    )
    assert component is not None
    layer = registry.construct("layer", component)
    assert isinstance(layer, nn.Conv2d)
    assert layer.kernel_size == (3, 1)
    resize, _ = checked("transform", {"type": "Resize", "size": [8, 9], "interpolation": "nearest"})
    assert resize is not None
    built = registry.construct("transform", resize)
    assert isinstance(built, v2.Resize)
    assert built(torch.zeros(1, 4, 4, dtype=torch.uint8)).shape == (1, 8, 9)
