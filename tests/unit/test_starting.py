"""Every initializer of the registry against a loop by hand with the same seed; what is refused, cheaply."""

import inspect
import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import init

from core.nets import registry
from core.nets.components.initializers import FAMILY
from core.nets.starting import Parameter, check_initialize, initialize, parameters_of
from modelyard.specs import ProblemError

Component = dict[str, Any]
INITIALIZERS = registry.names("initializer")
#: Keywords that are required, or other than torch's default.
OTHER: dict[str, Component] = {
    "uniform_": {"a": -0.5, "b": 0.25},
    "normal_": {"mean": 1.0, "std": 0.1},
    "trunc_normal_": {"std": 0.02, "a": -0.03, "b": 0.03},
    "constant_": {"val": 0.3},
    "dirac_": {"groups": 2},
    "xavier_uniform_": {"gain": 2.0},
    "xavier_normal_": {"gain": 0.5},
    "kaiming_uniform_": {"a": 0.2, "mode": "fan_out"},
    "kaiming_normal_": {"mode": "fan_out", "nonlinearity": "relu"},
    "orthogonal_": {"gain": 2.0},
    "sparse_": {"sparsity": 0.5},
}


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


def seeded() -> nn.Module:
    torch.manual_seed(11)
    return net()


def checked(entries: list[Component], of: nn.Module | None = None) -> list[Component]:
    errors: list[ProblemError] = []
    resolved = check_initialize(entries, parameters_of([("", of or net())]), errors)
    assert errors == []
    return resolved


def refused(entries: list[Component], of: nn.Module | None = None) -> list[tuple[str, str]]:
    errors: list[ProblemError] = []
    check_initialize(entries, parameters_of([("", of or net())]), errors)
    return [(error.pointer, error.code) for error in errors]


def assert_equal(ours: nn.Module, theirs: nn.Module) -> None:
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_every_function_of_torch_nn_init_is_offered_or_left_out_with_a_reason() -> None:
    public = {
        name
        for name, member in vars(init).items()
        if inspect.isfunction(member) and member.__module__ == init.__name__ and not name.startswith("_")
    }
    assert public == set(FAMILY.types) | FAMILY.absent.keys()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_net_starts_as_one_written_by_hand_with_the_same_seed(name: str) -> None:
    layer, kind = ("Conv2d", nn.Conv2d) if name == "dirac_" else ("Linear", nn.Linear)
    keywords = OTHER.get(name, {})
    entries = checked([{"type": name, "layer": layer, "parameter": "weight", **keywords}])
    ours = seeded()
    initialize(ours, entries)
    theirs = seeded()
    for module in theirs.modules():
        if isinstance(module, kind):
            getattr(init, name)(module.weight, **keywords)
    assert_equal(ours, theirs)
    first = "0.weight" if name == "dirac_" else "4.weight"
    assert not torch.equal(ours.state_dict()[first], seeded().state_dict()[first])


def test_he_s_start_for_convolutions_and_ones_and_zeros_for_batch_norm() -> None:
    # He, Zhang, Ren, Sun 2015, https://arxiv.org/abs/1502.01852, as torchvision's ResNet starts.
    entries = checked(
        [
            {
                "layer": "Conv2d",
                "parameter": "weight",
                "type": "kaiming_normal_",
                "mode": "fan_out",
                "nonlinearity": "relu",
            },
            {"layer": "BatchNorm2d", "parameter": "weight", "type": "ones_"},
            {"layer": "BatchNorm2d", "parameter": "bias", "type": "zeros_"},
        ]
    )
    ours = seeded()
    initialize(ours, entries)
    theirs = seeded()
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
    assert_equal(ours, theirs)


def test_a_later_entry_wins_and_the_earlier_draws_nothing_for_it() -> None:
    entries = checked(
        [
            {"type": "normal_", "parameter": "weight", "layer": "Linear"},
            {"type": "xavier_normal_", "match": r"4\.weight"},
        ]
    )
    ours = seeded()
    initialize(ours, entries)
    theirs = seeded()
    init.xavier_normal_(theirs[4].weight)  # type: ignore[index]
    init.normal_(theirs[6].weight)  # type: ignore[index]
    assert_equal(ours, theirs)


def test_a_layer_is_meant_with_all_that_inherit_from_its_class() -> None:
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    initialize(attention, checked([{"type": "zeros_", "layer": "Linear"}], attention))
    zeroed = {name for name, parameter in attention.named_parameters() if not parameter.any()}
    # self_attn.out_proj is a Linear of a class of torch's own.
    assert {"self_attn.out_proj.weight", "linear1.weight", "linear2.bias"} <= zeroed
    assert "self_attn.in_proj_weight" not in zeroed


def test_parameters_have_the_names_and_order_of_the_net_and_a_shared_one_its_first() -> None:
    shared = nn.Linear(3, 3)
    made = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.BatchNorm1d(3))})
    assert list(parameters_of([("", made)])) == [name for name, _ in made.named_parameters()]
    assert list(parameters_of([("a", made["a"]), ("b", made["b"])])) == [
        name for name, _ in made.named_parameters()
    ]


@pytest.mark.parametrize(
    ("entry", "pointer", "code"),
    [
        ({"type": "kaiming_normal"}, "/initialize/0/type", "unknown_type"),
        ({"type": "constant_"}, "/initialize/0", "missing"),
        ({"type": "normal_", "layer": "Conv3d"}, "/initialize/0/layer", "matches_nothing"),
        (
            {"type": "normal_", "layer": "Linear", "parameter": "wieght"},
            "/initialize/0/parameter",
            "matches_nothing",
        ),
        ({"type": "normal_", "layer": "Linear", "match": r"0\..*"}, "/initialize/0/match", "matches_nothing"),
        ({"type": "normal_", "match": "("}, "/initialize/0/match", "invalid_pattern"),
        ({"type": "normal_", "match": ""}, "/initialize/0/match", "invalid_value"),
        ({"type": "kaiming_normal_", "layer": "Linear"}, "/initialize/0", "shape"),
        ({"type": "dirac_", "layer": "Linear", "parameter": "weight"}, "/initialize/0", "shape"),
        ({"type": "dirac_", "match": r"0\.weight", "groups": 3}, "/initialize/0", "shape"),
        ({"type": "eye_", "match": r"0\.weight"}, "/initialize/0", "shape"),
        ({"type": "sparse_", "match": r"0\.weight", "sparsity": 0.1}, "/initialize/0", "shape"),
        ({"type": "orthogonal_", "match": r"0\.bias"}, "/initialize/0", "shape"),
    ],
)
def test_what_matches_nothing_or_does_not_fit_is_refused(entry: Component, pointer: str, code: str) -> None:
    assert refused([entry]) == [(pointer, code)]


def test_a_refused_shape_says_which_parameter_and_how_to_leave_the_biases_out() -> None:
    errors: list[ProblemError] = []
    check_initialize([{"type": "xavier_uniform_", "layer": "Linear"}], parameters_of([("", net())]), errors)
    assert "4.bias [6]" in errors[0].message
    assert '"parameter": "weight"' in errors[0].message


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_huge_parameter_is_tried_without_its_memory_and_at_once(name: str) -> None:
    shape = (2**20, 2**11, 3) if name == "dirac_" else (2**20, 2**11)
    entry = {"type": name, **OTHER.get(name, {})} | ({"groups": 2**19} if name == "dirac_" else {})
    errors: list[ProblemError] = []
    began = time.perf_counter()
    check_initialize([entry], {"w": Parameter(shape, ("Conv1d",))}, errors)
    assert errors == []
    assert time.perf_counter() - began < 0.5


def test_too_many_entries_are_refused() -> None:
    assert refused([{"type": "zeros_"}] * 101) == [("/initialize", "too_large")]
