"""Every schedule of the registry against torch's class by hand: the learning rates of twelve epochs."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from core.nets import registry
from core.nets.clock import Clock
from core.nets.optimization import build_optimizer, check_optimizer
from core.nets.schedules import build_scheduler
from core.nets.trial import try_schedule

Component = dict[str, Any]
EPOCHS, STEPS = 12, 5
CLOCK = Clock(EPOCHS, STEPS)
#: What a plateau waits for: it falls, then stays.
LOSSES = [1.0, 0.8, 0.7, *([0.7] * 9)]

By = Callable[[Optimizer], Any]
#: The component beside what a script writes.
CASES: dict[str, tuple[Component, By]] = {
    "StepLR": ({"step_size": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5)),
    "MultiStepLR": ({"milestones": [2, 2, 7]}, lambda o: lr_scheduler.MultiStepLR(o, milestones=[2, 2, 7])),
    "ConstantLR": ({"factor": 0.1}, lambda o: lr_scheduler.ConstantLR(o, factor=0.1)),
    "LinearLR": ({"total_iters": 4}, lambda o: lr_scheduler.LinearLR(o, total_iters=4)),
    "ExponentialLR": ({"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9)),
    "PolynomialLR": (
        {"total_iters": 10, "power": 2.0},
        lambda o: lr_scheduler.PolynomialLR(o, total_iters=10, power=2.0),
    ),
    "CosineAnnealingLR": (
        {"T_max": 12, "eta_min": 1e-4},
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=12, eta_min=1e-4),
    ),
    "CosineAnnealingWarmRestarts": (
        {"T_0": 3, "T_mult": 2},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2),
    ),
    "CyclicLR": (
        {"base_lr": [0.01, 0.02], "max_lr": 0.1, "step_size_up": 7, "mode": "exp_range", "gamma": 0.99},
        lambda o: lr_scheduler.CyclicLR(
            o, base_lr=[0.01, 0.02], max_lr=0.1, step_size_up=7, mode="exp_range", gamma=0.99
        ),
    ),
    "OneCycleLR": (
        {"max_lr": [0.1, 1.0]},
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.1, 1.0], total_steps=EPOCHS * STEPS),
    ),
    "ReduceLROnPlateau": (
        {"patience": 2, "factor": 0.5},
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2, factor=0.5),
    ),
    "SequentialLR": (
        {
            "schedulers": [
                {"type": "LinearLR", "start_factor": 0.1, "total_iters": 3},
                {"type": "CosineAnnealingLR", "T_max": 9},
            ],
            "milestones": [3],
        },
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=3),
                lr_scheduler.CosineAnnealingLR(o, T_max=9),
            ],
            milestones=[3],
        ),
    ),
    "ChainedScheduler": (
        {
            "schedulers": [
                {"type": "ConstantLR", "factor": 0.1, "total_iters": 2},
                {"type": "ExponentialLR", "gamma": 0.9},
            ]
        },
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, factor=0.1, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.9)]
        ),
    ),
    "LambdaLR": (
        {"lr_lambda": ["0.95 ** epoch", "min(1, (epoch + 1) / 4)"]},
        lambda o: lr_scheduler.LambdaLR(
            o, [lambda epoch: 0.95**epoch, lambda epoch: min(1, (epoch + 1) / 4)]
        ),
    ),
    "MultiplicativeLR": (
        {"lr_lambda": "0.9 if epoch % 2 == 0 else 1"},
        lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9 if epoch % 2 == 0 else 1),
    ),
}


def optimizer() -> Optimizer:
    """Two groups of differing learning rates."""
    raw = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "param_groups": [{"match": "bias", "lr": 0.5}]}
    component = check_optimizer(raw, [])
    assert component is not None
    return build_optimizer(component, nn.Linear(2, 1))


def resolved(raw: Component, clock: Clock = CLOCK) -> Component:
    errors: list[Any] = []
    component = registry.check_component("scheduler", raw, "/scheduler", errors)
    of = check_optimizer(
        {"type": "SGD", "lr": 0.1, "momentum": 0.9, "param_groups": [{"match": "bias"}]}, errors
    )
    assert component is not None, errors
    assert of is not None
    found = try_schedule(component, of, ["weight", "bias"], clock, ["val_loss"], errors)
    assert found is not None, errors
    return found


def rates(made: Any, of: Optimizer, first: int, last: int) -> list[list[float]]:
    """Before each of the steps from `first` to `last`."""
    seen = []
    for count in range(first, last):
        seen.append([group["lr"] for group in of.param_groups])
        of.step()
        if isinstance(made, lr_scheduler.ReduceLROnPlateau):
            made.step(LOSSES[count])
        else:
            made.step()
    return seen


def test_every_schedule_of_the_registry_has_its_case() -> None:
    assert set(CASES) == set(registry.names("scheduler"))


@pytest.mark.parametrize("name", CASES)
def test_the_learning_rates_are_those_of_torch_s_class(name: str) -> None:
    keywords, by_hand = CASES[name]
    component = resolved({"type": name} | keywords)
    ours, theirs = optimizer(), optimizer()
    count = CLOCK.total(component["interval"])
    assert count == (EPOCHS * STEPS if name in ("CyclicLR", "OneCycleLR") else EPOCHS)
    given = rates(build_scheduler(component, ours, CLOCK), ours, 0, count)
    assert given == rates(by_hand(theirs), theirs, 0, count)
    assert given[0] != given[-1]


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_restored_from_plain_data_goes_on_as_the_unbroken_one(name: str) -> None:
    component = resolved({"type": name} | CASES[name][0])
    unbroken = optimizer()
    expected = rates(build_scheduler(component, unbroken, CLOCK), unbroken, 0, EPOCHS)
    broken = optimizer()
    schedule = build_scheduler(component, broken, CLOCK)
    assert schedule is not None
    before = rates(schedule, broken, 0, 5)
    file = io.BytesIO()
    torch.save([broken.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    optimizer_state, schedule_state = torch.load(file, weights_only=True)
    resumed = optimizer()
    again = build_scheduler(component, resumed, CLOCK)
    assert again is not None
    resumed.load_state_dict(optimizer_state)
    again.load_state_dict(schedule_state)
    resumed.step()  # torch warns of a schedule stepped first
    assert before + rates(again, resumed, 5, EPOCHS) == expected


def test_an_expression_knows_epoch_and_step_whichever_of_them_is_counted() -> None:
    by_step = resolved({"type": "LambdaLR", "lr_lambda": "epoch + step / 1000", "interval": "step"})
    of = optimizer()
    seen = [rate for rate, _ in rates(build_scheduler(by_step, of, CLOCK), of, 0, 12)]
    assert seen == [0.1 * (count // STEPS + count / 1000) for count in range(12)]
    by_epoch = resolved({"type": "LambdaLR", "lr_lambda": "epoch + step / 1000"})
    of = optimizer()
    seen = [rate for rate, _ in rates(build_scheduler(by_epoch, of, CLOCK), of, 0, 5)]
    assert seen == [0.1 * (epoch + epoch * STEPS / 1000) for epoch in range(5)]


def test_warm_up_and_cosine_written_as_an_expression_have_the_value_of_the_formula() -> None:
    text = "(step + 1) / 10 if step < 10 else 0.5 * (1 + cos(pi * (step - 10) / 50))"
    component = resolved({"type": "LambdaLR", "lr_lambda": text, "interval": "step"})
    of = optimizer()
    seen = [rate for rate, _ in rates(build_scheduler(component, of, CLOCK), of, 0, 60)]
    # Loshchilov and Hutter 2017, eq. 5, after ten steps of warm-up.
    cosine = [0.1 * 0.5 * (1 + math.cos(math.pi * t / 50)) for t in range(50)]
    assert seen == pytest.approx([0.1 * (t + 1) / 10 for t in range(10)] + cosine, rel=1e-12)


def test_a_one_cycle_after_a_warm_up_has_what_is_left_of_the_steps() -> None:
    component = resolved(
        {
            "type": "SequentialLR",
            "schedulers": [{"type": "LinearLR"}, {"type": "OneCycleLR", "max_lr": 0.3}],
            "milestones": [20],
        }
    )
    assert component["interval"] == "step"
    assert component["schedulers"][1]["total_steps"] == EPOCHS * STEPS - 20
    of = optimizer()
    assert len(rates(build_scheduler(component, of, CLOCK), of, 0, EPOCHS * STEPS)) == EPOCHS * STEPS
