"""What a schedule leaves out is filled in, and what can't run is refused before it does."""

import inspect
import time
from typing import Any

import pytest
from torch.optim import lr_scheduler

from core.nets import registry
from core.nets.clock import Clock
from core.nets.components.schedulers import FAMILY
from core.nets.optimization import check_optimizer
from core.nets.trial import try_schedule
from modelyard.specs import ProblemError

Component = dict[str, Any]
CLOCK = Clock(epochs=12, steps_per_epoch=50)
MONITORED = ["train_loss", "val_loss", "val_accuracy"]
NAMES = ["0.weight", "0.bias", "1.weight"]
MOMENTUM = {"type": "SGD", "lr": 0.1, "momentum": 0.9}


def tried(
    raw: object, optimizer: Component = MOMENTUM, clock: Clock = CLOCK
) -> tuple[Component | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    component = registry.check_component("scheduler", raw, "/scheduler", errors)
    if component is None:
        return None, errors
    of = check_optimizer(optimizer, errors)
    assert of is not None, errors
    return try_schedule(component, of, NAMES, clock, MONITORED, errors), errors


def resolved(raw: Component, **keywords: Any) -> Component:
    component, errors = tried(raw, **keywords)
    assert component is not None, errors
    return component


def refused(raw: Component, **keywords: Any) -> list[tuple[str, str]]:
    component, errors = tried(raw, **keywords)
    assert component is None
    return [(error.pointer, error.code) for error in errors]


def test_every_schedule_of_torch_is_offered_or_left_out_with_a_reason() -> None:
    classes = {
        name
        for name, member in vars(lr_scheduler).items()
        if inspect.isclass(member) and issubclass(member, lr_scheduler.LRScheduler)
    }
    assert classes == set(FAMILY.types) | FAMILY.own.keys() | FAMILY.absent.keys()


@pytest.mark.parametrize(
    ("raw", "interval"),
    [
        ({"type": "StepLR", "step_size": 2}, "epoch"),
        ({"type": "StepLR", "step_size": 2, "interval": "step"}, "step"),
        ({"type": "OneCycleLR", "max_lr": 0.1}, "step"),
        ({"type": "OneCycleLR", "max_lr": 0.1, "interval": "epoch"}, "epoch"),
        ({"type": "CyclicLR", "base_lr": 0.1, "max_lr": 0.2}, "step"),
        ({"type": "ReduceLROnPlateau"}, "epoch"),
        ({"type": "ReduceLROnPlateau", "interval": "epoch"}, "epoch"),
    ],
)
def test_a_schedule_is_stepped_once_an_epoch_unless_it_is_one_of_steps(raw: Component, interval: str) -> None:
    assert resolved(raw)["interval"] == interval


def test_what_a_schedule_holds_has_its_interval() -> None:
    children = [{"type": "LinearLR"}, {"type": "ExponentialLR", "gamma": 0.9}]
    chained = {"type": "ChainedScheduler", "schedulers": children, "interval": "step"}
    assert [child["interval"] for child in resolved(chained)["schedulers"]] == ["step", "step"]
    children[1]["interval"] = "epoch"
    assert refused(chained) == [("/scheduler/schedulers/1/interval", "invalid_value")]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_one_cycle_s_steps_are_the_job_s(interval: str) -> None:
    component = resolved({"type": "OneCycleLR", "max_lr": 0.1, "interval": interval})
    assert component["total_steps"] == (12 if interval == "epoch" else 600)


def test_one_cycle_s_own_steps_are_kept_and_must_suffice() -> None:
    assert resolved({"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 700})["total_steps"] == 700
    by_epochs = {"type": "OneCycleLR", "max_lr": 0.1, "epochs": 12, "steps_per_epoch": 50}
    assert resolved(by_epochs)["total_steps"] is None
    short = [("/scheduler/total_steps", "invalid_value")]
    assert refused({"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 599}) == short
    assert refused(by_epochs | {"epochs": 11}) == [("/scheduler/epochs", "invalid_value")]


def test_a_resolved_schedule_is_resolved_again_to_itself() -> None:
    children = [{"type": "LinearLR"}, {"type": "OneCycleLR", "max_lr": 0.3}]
    for raw in (
        {"type": "LambdaLR", "lr_lambda": "1"},
        {"type": "SequentialLR", "schedulers": children, "milestones": [20]},
        {"type": "ReduceLROnPlateau", "monitor": "val_accuracy", "mode": "max"},
    ):
        assert resolved(resolved(raw)) == resolved(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"type": "CosineLR"}, [("/scheduler/type", "unknown_type")]),
        ({"type": "LRScheduler"}, [("/scheduler/type", "unknown_type")]),
        ({"type": "StepLR"}, [("/scheduler", "missing")]),
        ({"type": "StepLR", "step_size": 0}, [("/scheduler/step_size", "invalid_value")]),
        ({"type": "StepLR", "step_size": 2, "last_epoch": 3}, [("/scheduler/last_epoch", "unknown_keyword")]),
        ({"type": "LinearLR", "start_factor": 0.0}, [("/scheduler", "invalid_value")]),
        ({"type": "ExponentialLR", "gamma": 1e37}, [("/scheduler", "invalid_value")]),
        ({"type": "CyclicLR", "base_lr": [0.1, 0.2], "max_lr": 0.2}, [("/scheduler", "invalid_value")]),
        ({"type": "ReduceLROnPlateau", "interval": "step"}, [("/scheduler/interval", "invalid_value")]),
        ({"type": "ReduceLROnPlateau", "monitor": "val_acuracy"}, [("/scheduler/monitor", "unknown_metric")]),
        ({"type": "ReduceLROnPlateau", "factor": 2.0}, [("/scheduler", "invalid_value")]),
        (
            {"type": "ChainedScheduler", "schedulers": [{"type": "ReduceLROnPlateau"}]},
            [("/scheduler/schedulers/0", "invalid_value")],
        ),
        (
            {"type": "SequentialLR", "schedulers": [{"type": "LinearLR"}], "milestones": [1]},
            [("/scheduler", "invalid_value")],
        ),
        (
            {"type": "ChainedScheduler", "schedulers": [{"type": "StepLR", "step_sise": 1}]},
            [
                ("/scheduler/schedulers/0/step_sise", "unknown_keyword"),
                ("/scheduler/schedulers/0", "missing"),
            ],
        ),
        (
            {"type": "ChainedScheduler", "schedulers": [{"type": "LinearLR"}] * 50},
            [("/scheduler", "too_large")],
        ),
        ({"type": "LambdaLR", "lr_lambda": "epochs"}, [("/scheduler/lr_lambda", "invalid_value")]),
        ({"type": "LambdaLR", "lr_lambda": ["1", "1"]}, [("/scheduler", "invalid_value")]),
        ({"type": "LambdaLR", "lr_lambda": ["1 /"]}, [("/scheduler/lr_lambda/0", "invalid_value")]),
        ({"type": "MultiplicativeLR", "lr_lambda": "1e30"}, [("/scheduler", "invalid_value")]),
    ],
)
def test_what_cannot_run_is_refused_with_its_pointer(raw: Component, expected: list[tuple[str, str]]) -> None:
    assert refused(raw) == expected


def test_an_expression_is_tried_at_every_epoch_of_the_job() -> None:
    raw = {"type": "LambdaLR", "lr_lambda": "1 / (11 - epoch)"}
    _, errors = tried(raw)
    assert "at epoch 11, step 550: it divides by zero" in errors[0].message
    assert resolved(raw, clock=Clock(epochs=10, steps_per_epoch=50))


def test_momentum_that_the_optimizer_lacks_is_told_in_torch_s_words() -> None:
    _, errors = tried({"type": "OneCycleLR", "max_lr": 0.1}, optimizer={"type": "Adagrad"})
    assert "`cycle_momentum` option enabled" in errors[0].message
    assert resolved({"type": "OneCycleLR", "max_lr": 0.1}, optimizer={"type": "Adam"})


def test_a_schedule_with_a_rate_for_each_group_fits_the_groups_there_are() -> None:
    groups = MOMENTUM | {"param_groups": [{"match": "1.*", "lr": 0.5}]}
    raw = {"type": "OneCycleLR", "max_lr": [0.1, 0.2]}
    assert resolved(raw, optimizer=groups)
    assert refused(raw) == [("/scheduler", "invalid_value")]


def test_a_hostile_schedule_of_a_million_epochs_costs_little() -> None:
    deepest: Component = {"type": "LambdaLR", "lr_lambda": "+".join(["step"] * 40)}
    raw = {"type": "ChainedScheduler", "schedulers": [deepest] * 49}
    began = time.perf_counter()
    resolved(raw, clock=Clock(epochs=1_000_000, steps_per_epoch=10_000))
    assert time.perf_counter() - began < 2
