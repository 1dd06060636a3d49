"""One real step of optimizer and schedule on a handful of numbers, so that torch says what it refuses."""

import torch
from torch import nn
from torch.optim import Optimizer

from core.nets.build import Component, build_optimizer, build_scheduler
from core.nets.faults import fault, first_line
from core.nets.images import REFUSALS
from modelyard.specs import ProblemError

_SIDE = 8


def try_optimizer(
    optimizer: Component | None, scheduler: Component | None, errors: list[ProblemError]
) -> float:
    """How many numbers of state the optimizer keeps for each it trains (Adam: 2); 0 where it is wrong."""
    if optimizer is None:
        return 0.0
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(_SIDE, _SIDE))
    net.weight.grad = torch.zeros(_SIDE, _SIDE)
    try:
        made = build_optimizer(optimizer, net)
        made.step()
    except REFUSALS as error:
        fault(
            errors, "/optimizer", "invalid_value", f"torch refuses {optimizer['type']}: {first_line(error)}."
        )
        return 0.0
    state = made.state[net.weight].values()
    numbers = sum(t.numel() for t in state if isinstance(t, torch.Tensor) and t.dim() > 0)
    if scheduler is not None:
        _try_schedule(scheduler, made, errors)
    return numbers / (_SIDE * _SIDE)


def _try_schedule(scheduler: Component, optimizer: Optimizer, errors: list[ProblemError]) -> None:
    try:
        schedule = build_scheduler(scheduler, optimizer)
        # torch warns about a schedule that is stepped before its optimizer.
        optimizer.step()
        if schedule is not None:
            schedule.step()
    except REFUSALS as error:
        fault(
            errors, "/scheduler", "invalid_value", f"torch refuses {scheduler['type']}: {first_line(error)}."
        )
