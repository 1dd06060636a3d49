"""Learning rate schedules, stepped once an epoch or once an optimizer step."""

from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler

from core.nets import expression
from core.nets.clock import Clock, Interval
from core.nets.components.family import Extra, Family, Holds, Override


def lambda_lr(
    optimizer: Optimizer, clock: Clock, interval: Interval, lr_lambda: str | list[str]
) -> lr_scheduler.LambdaLR:
    """Sets each parameter group's learning rate to its initial one times an expression of epoch and step."""
    return lr_scheduler.LambdaLR(optimizer, functions(lr_lambda, clock, interval))


def multiplicative_lr(
    optimizer: Optimizer, clock: Clock, interval: Interval, lr_lambda: str | list[str]
) -> lr_scheduler.MultiplicativeLR:
    """Multiplies the learning rate of each parameter group by an expression of epoch and step."""
    return lr_scheduler.MultiplicativeLR(optimizer, functions(lr_lambda, clock, interval))


def chained(optimizer: Optimizer, schedulers: list[Any]) -> lr_scheduler.ChainedScheduler:
    """Chains a list of learning rate schedulers: each multiplies what those before it gave."""
    return lr_scheduler.ChainedScheduler(schedulers, optimizer=optimizer)


def functions(lr_lambda: str | list[str], clock: Clock, interval: Interval) -> Any:
    """What torch calls with its own count of steps. Plain functions: torch then keeps none of them in the
    schedule's state, which stays plain values."""

    def function(text: str) -> Any:
        parsed = expression.parse(text)
        return lambda count: parsed.at(*clock.read(count, interval))

    return [function(text) for text in lr_lambda] if isinstance(lr_lambda, list) else function(lr_lambda)


_EXPRESSION = Override("the signature takes a function; here it is a text", str | list[str])
_INTERVAL = "torch leaves it to the loop when to step"

FAMILY = Family(
    name="scheduler",
    namespace=lr_scheduler,
    types=(
        "StepLR",
        "MultiStepLR",
        "ConstantLR",
        "LinearLR",
        "ExponentialLR",
        "PolynomialLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CyclicLR",
        "OneCycleLR",
        "ReduceLROnPlateau",
        "SequentialLR",
    ),
    own={"ChainedScheduler": chained, "LambdaLR": lambda_lr, "MultiplicativeLR": multiplicative_lr},
    absent={
        "LRScheduler": "it is what schedules inherit from",
        "_LRScheduler": "it is what schedules inherit from",
    },
    left_out={
        "*.optimizer": "the optimizer is the job's",
        "*.clock": "the job knows how many steps an epoch has",
        "*.last_epoch": "a resumed job restores the schedule's own state",
        "CyclicLR.scale_fn": "it is a function; mode names three, and LambdaLR takes an expression",
    },
    overrides={
        "LambdaLR.lr_lambda": _EXPRESSION,
        "MultiplicativeLR.lr_lambda": _EXPRESSION,
        "ChainedScheduler.schedulers": Override("they are components", Holds("scheduler")),
        "SequentialLR.schedulers": Override("they are components", Holds("scheduler")),
    },
    extras={
        "*.interval": Extra(_INTERVAL, Interval | None, None),
        "LambdaLR.interval": Extra(_INTERVAL, Interval | None, None, is_passed=True),
        "MultiplicativeLR.interval": Extra(_INTERVAL, Interval | None, None, is_passed=True),
        "ReduceLROnPlateau.interval": Extra(
            "a metric is measured once an epoch", Literal["epoch"] | None, None
        ),
        "ReduceLROnPlateau.monitor": Extra("torch's step takes the metric itself", str, "val_loss"),
    },
    least={
        "T_0": 1,
        "T_max": 1,
        "T_mult": 1,
        "cooldown": 0,
        "epochs": 1,
        "milestones": 0,
        "patience": 0,
        "step_size": 1,
        "step_size_down": 1,
        "step_size_up": 1,
        "steps_per_epoch": 1,
        "total_iters": 1,
        "total_steps": 1,
    },
)

#: They hold other schedules, which keep their interval.
HOLDERS = frozenset({"ChainedScheduler", "SequentialLR"})
#: Their functions are told the clock.
OF_CLOCK = frozenset({"LambdaLR", "MultiplicativeLR"})
#: torch's documentation steps them after every batch.
PER_STEP = frozenset({"CyclicLR", "OneCycleLR"})
#: The learning rate they give isn't the optimizer's own.
SET_RATES = frozenset({"CyclicLR", "LambdaLR", "MultiplicativeLR", "OneCycleLR"})
