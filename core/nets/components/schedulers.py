"""Learning rate schedules, stepped once an epoch or once an optimizer step."""

from typing import Literal

from torch.optim import lr_scheduler

from core.nets.components.family import Extra, Family

FAMILY = Family(
    name="scheduler",
    namespace=lr_scheduler,
    types=("StepLR", "CosineAnnealingLR"),
    left_out={
        "*.optimizer": "the optimizer is the job's",
        "*.last_epoch": "a resumed job restores the schedule's own state",
    },
    extras={
        "*.interval": Extra("torch leaves it to the loop when to step", Literal["epoch", "step"], "epoch"),
    },
    least={"step_size": 1, "T_max": 1},
)
