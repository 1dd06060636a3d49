"""Every optimizer of the registry against torch's class by hand; groups by pattern; what is refused."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from core.nets import registry
from core.nets.components.optimizers import FAMILY
from core.nets.joint import JointOptimizer
from core.nets.optimization import advise_learning_rate, build_optimizer, check_groups, check_optimizer
from core.nets.trial import try_step
from modelyard.specs import ProblemError

Component = dict[str, Any]
OPTIMIZERS = registry.names("optimizer")
#: Other than torch's default, for each keyword.
OTHER: Component = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"betas": [0.8, 0.99], "amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
    "ASGD": {"t0": 2.0},
    "Adadelta": {"rho": 0.5},
    "Adafactor": {"eps": [None, 0.01]},
    "Adagrad": {"initial_accumulator_value": 0.1},
    "Adamax": {"eps": 1e-4},
    "Muon": {"ns_steps": 3, "ns_coefficients": [3.0, -4.0, 2.0]},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "RAdam": {"weight_decay": 0.1},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Rprop": {"step_sizes": [1e-4, 1.0]},
}


def matrices() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))


def ordinary() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3))


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(7)
    return make()


def three_steps(net: nn.Module, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    x = x if isinstance(net[0], nn.Linear) else x[:, None]  # type: ignore[index]
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return net.state_dict()


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def checked(raw: object) -> Component:
    errors: list[ProblemError] = []
    component = check_optimizer(raw, errors)
    assert component is not None, errors
    return component


def refused(raw: object) -> list[tuple[str, str]]:
    errors: list[ProblemError] = []
    assert check_optimizer(raw, errors) is None
    return [(error.pointer, error.code) for error in errors]


def test_every_class_of_torch_optim_is_offered_or_left_out_with_a_reason() -> None:
    classes = {name for name, member in vars(optim).items() if inspect.isclass(member)}
    assert classes <= set(FAMILY.types) | FAMILY.absent.keys()
    assert not set(FAMILY.types) & FAMILY.absent.keys()


@pytest.mark.parametrize("has_keywords", [False, True], ids=["defaults", "keywords"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_equal_those_of_torch_s_class(name: str, has_keywords: bool) -> None:
    make = matrices if name == "Muon" else ordinary
    keywords = OTHER[name] if has_keywords else {}
    ours = made(make)
    theirs = made(make)
    by_hand = {word: tuple(value) if isinstance(value, list) else value for word, value in keywords.items()}
    expected = three_steps(theirs, getattr(optim, name)(theirs.parameters(), **by_hand))
    given = three_steps(ours, build_optimizer(checked({"type": name} | keywords), ours))
    assert_equal(given, expected)
    assert not torch.equal(given["0.weight"], made(make).state_dict()["0.weight"])


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "Muon"])
def test_groups_train_as_those_written_by_hand(name: str) -> None:
    raw = {
        "type": name,
        "lr": 0.05,
        "param_groups": [{"match": r"3\..*", "lr": 0.5}, {"match": "0.bias", **OTHER[name]}],
    }
    ours, theirs = made(ordinary), made(ordinary)
    named = dict(theirs.named_parameters())
    other = {word: tuple(value) if isinstance(value, list) else value for word, value in OTHER[name].items()}
    groups = [
        {"params": [named["0.weight"], named["1.weight"], named["1.bias"]]},
        {"params": [named["3.weight"], named["3.bias"]], "lr": 0.5},
        {"params": [named["0.bias"]], **other},
    ]
    expected = three_steps(theirs, getattr(optim, name)(groups, lr=0.05))
    assert_equal(three_steps(ours, build_optimizer(checked(raw), ours)), expected)


def test_muon_beside_adamw_trains_as_two_optimizers_by_hand() -> None:
    raw = {
        "type": "Muon",
        "lr": 0.02,
        "param_groups": [{"match": r"0\..*|1\..*|.*bias", "type": "AdamW", "lr": 3e-3}],
    }
    ours, theirs = made(ordinary), made(ordinary)
    named = dict(theirs.named_parameters())
    muon = optim.Muon([named.pop("3.weight")], lr=0.02)
    adamw = optim.AdamW(named.values(), lr=3e-3)
    x = torch.randn(8, 1, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        theirs.zero_grad()
        theirs(x).square().mean().backward()
        muon.step()
        adamw.step()
    joint = build_optimizer(checked(raw), ours)
    assert isinstance(joint, JointOptimizer)
    assert_equal(three_steps(ours, joint), theirs.state_dict())


def test_a_joint_optimizer_that_was_restored_goes_on_as_the_unbroken_one() -> None:
    raw = checked(
        {"type": "SGD", "lr": 0.1, "momentum": 0.9, "param_groups": [{"match": "3.*", "type": "Adam"}]}
    )
    unbroken, broken = made(ordinary), made(ordinary)
    first, second = build_optimizer(raw, unbroken), build_optimizer(raw, broken)
    three_steps(unbroken, first)
    three_steps(broken, second)
    resumed = made(ordinary)
    resumed.load_state_dict(broken.state_dict())
    third = build_optimizer(raw, resumed)
    third.load_state_dict(second.state_dict())
    for each in (first, third):
        each.param_groups[0]["lr"] = 0.01  # as a schedule does
    assert_equal(three_steps(resumed, third), three_steps(unbroken, first))


def test_a_parameter_that_never_trains_is_not_given_to_the_optimizer() -> None:
    net = made(ordinary)
    component = checked({"type": "SGD", "param_groups": [{"match": "3.weight", "lr": 1.0}]})
    optimizer = build_optimizer(component, net, trained=["3.weight", "3.bias"])
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups] == [
        ["3.bias"],
        ["3.weight"],
    ]


def test_one_group_that_takes_all_leaves_no_empty_one_before_it() -> None:
    optimizer = build_optimizer(
        checked({"type": "SGD", "param_groups": [{"match": ".*", "lr": 1.0}]}), made(ordinary)
    )
    assert [(group["lr"], len(group["params"])) for group in optimizer.param_groups] == [(1.0, 6)]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([{"match": "0.*", "lrr": 1.0}], [("/optimizer/param_groups/0/lrr", "unknown_keyword")]),
        ([{"match": "0.*", "lr": "1"}], [("/optimizer/param_groups/0/lr", "invalid_value")]),
        ([{"match": "0.*"}, {"lr": 1.0}], [("/optimizer/param_groups/1/match", "missing")]),
        ([{"match": ""}], [("/optimizer/param_groups/0/match", "invalid_value")]),
        ([{"match": "a" * 201}], [("/optimizer/param_groups/0/match", "invalid_value")]),
        ([{"match": "0.*", "type": "Adan"}], [("/optimizer/param_groups/0/type", "unknown_type")]),
        (
            [{"match": "0.*", "type": "Muon", "betas": [0.9, 0.9]}],
            [("/optimizer/param_groups/0/betas", "unknown_keyword")],
        ),
        (
            [{"match": "0.*", "param_groups": []}],
            [("/optimizer/param_groups/0/param_groups", "unknown_keyword")],
        ),
        (["0.*"], [("/optimizer/param_groups/0", "wrong_type")]),
        ({"match": "0.*"}, [("/optimizer/param_groups", "invalid_value")]),
        ([{"match": "0.*"}] * 101, [("/optimizer/param_groups", "invalid_value")]),
    ],
)
def test_a_group_is_checked_against_the_optimizer_s_signature(
    groups: object, expected: list[tuple[str, str]]
) -> None:
    assert refused({"type": "SGD", "param_groups": groups}) == expected


def test_all_errors_of_an_optimizer_and_its_groups_come_at_once() -> None:
    raw = {
        "type": "SGD",
        "lrr": 1.0,
        "param_groups": [{"match": "0.*", "lrr": 1.0}, {"match": "1.*", "momentum": "x"}],
    }
    assert refused(raw) == [
        ("/optimizer/lrr", "unknown_keyword"),
        ("/optimizer/param_groups/0/lrr", "unknown_keyword"),
        ("/optimizer/param_groups/1/momentum", "invalid_value"),
    ]


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam"])
def test_what_is_left_out_says_why(name: str) -> None:
    errors: list[ProblemError] = []
    check_optimizer({"type": name}, errors)
    assert FAMILY.absent[name] in errors[0].message


def test_a_resolved_optimizer_is_resolved_again_to_itself() -> None:
    for raw in (
        {"type": "AdamW"},
        {"type": "SGD", "param_groups": [{"match": "0.*", "lr": 0.5}, {"match": "1.*", "type": "Adam"}]},
    ):
        assert checked(checked(raw)) == checked(raw)


@pytest.mark.parametrize(
    ("groups", "pointer", "code"),
    [
        ([{"match": "fc"}], "/optimizer/param_groups/0/match", "matches_nothing"),
        ([{"match": r"0\..*"}, {"match": ".*bias"}], "/optimizer/param_groups/1/match", "matches_twice"),
    ],
)
def test_a_group_matches_something_and_nothing_twice(
    groups: list[Component], pointer: str, code: str
) -> None:
    errors: list[ProblemError] = []
    check_groups(checked({"type": "SGD", "param_groups": groups}), ["0.weight", "0.bias", "3.bias"], errors)
    assert [(error.pointer, error.code) for error in errors] == [(pointer, code)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bytes_of_state_are_those_that_a_real_step_leaves(name: str) -> None:
    net = made(matrices if name == "Muon" else ordinary)
    component = checked({"type": name})
    errors: list[ProblemError] = []
    counted = try_step(component, {n: tuple(p.shape) for n, p in net.named_parameters()}, errors).state
    optimizer = build_optimizer(component, net)
    three_steps(net, optimizer)
    tensors = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    assert errors == []
    assert counted == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_the_state_of_a_huge_parameter_is_counted_without_its_memory() -> None:
    huge = {"w": (2**20, 2**20)}
    assert try_step(checked({"type": "Adam"}), huge, []).state == 2 * 4 * 2**40 + 4
    assert try_step(checked({"type": "Adafactor"}), huge, []).state == 2 * 4 * 2**20 + 4


@pytest.mark.parametrize(
    ("raw", "pointer", "words"),
    [
        ({"type": "SGD", "lr": -1.0}, "/optimizer", "Invalid learning rate: -1.0"),
        ({"type": "SGD", "nesterov": True}, "/optimizer", "Nesterov momentum requires"),
        ({"type": "Adam", "foreach": True, "fused": True}, "/optimizer", "cannot be `True` together"),
        # torch itself doesn't look into groups.
        (
            {"type": "SGD", "param_groups": [{"match": "0.*", "lr": -1.0}]},
            "/optimizer/param_groups/0",
            "Invalid learning rate: -1.0",
        ),
    ],
)
def test_what_torch_refuses_is_told_in_its_words(raw: Component, pointer: str, words: str) -> None:
    errors: list[ProblemError] = []
    assert check_optimizer(raw, errors) is None
    assert words in errors[0].message
    assert errors[0].pointer == pointer


def test_muon_is_told_which_parameters_are_no_matrices() -> None:
    errors: list[ProblemError] = []
    try_step(
        checked({"type": "Muon"}), {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (2, 3, 3, 3)}, errors
    )
    (error,) = errors
    assert error.pointer == "/optimizer"
    assert "0.bias, 1.weight" in error.message
    assert "0.weight" not in error.message
    assert '"type": "AdamW"' in error.message


@pytest.mark.parametrize(
    ("raw", "scheduler", "expected"),
    [
        ({"type": "Adam", "lr": 0.5}, None, ["/optimizer/lr: 0.5 is high for Adam"]),
        ({"type": "SGD", "lr": 1e-6}, None, ["/optimizer/lr: 1e-06 is low for SGD"]),
        ({"type": "SGD", "lr": 20.0}, None, ["/optimizer/lr: 20 is high for SGD"]),
        ({"type": "Adadelta", "lr": 1e-3}, None, ["/optimizer/lr: 0.001 is low for Adadelta"]),
        (
            {"type": "SGD", "param_groups": [{"match": ".*", "lr": 50.0}]},
            None,
            ["/optimizer/param_groups/0/lr: 50 is high for SGD"],
        ),
        ({"type": "Adam", "lr": 1.0}, {"type": "LambdaLR", "lr_lambda": "1e-3"}, []),
        *[({"type": name}, None, []) for name in OPTIMIZERS],
    ],
)
def test_a_learning_rate_that_is_far_off_is_warned_of(
    raw: Component, scheduler: Component | None, expected: list[str]
) -> None:
    warnings = list(advise_learning_rate(checked(raw), scheduler))
    assert len(warnings) == len(expected)
    for warning, start in zip(warnings, expected, strict=True):
        assert warning.startswith(start)
        assert "usual" in warning


def test_a_pattern_that_is_none_is_refused_before_the_parameters_are_known() -> None:
    raw = {"type": "SGD", "param_groups": [{"match": "("}]}
    assert refused(raw) == [("/optimizer/param_groups/0/match", "invalid_pattern")]
