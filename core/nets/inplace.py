"""Layers that write into their input may spoil what an earlier layer saved for its gradient: told before
the first step, which would raise."""

import torch
from torch import Tensor

from core.nets.faults import fault
from core.nets.walk import Walked
from modelyard.specs import ProblemError


def check_inplace(walked: Walked, x: Tensor, errors: list[ProblemError]) -> None:
    """Where a layer says `inplace`, one forward and backward pass of the meta batch `x`, so that autograd's
    own version counts decide."""
    inplace = [step.pointer for step in walked.steps if step.component.get("inplace")]
    if not inplace or walked.trainable == 0:
        return
    out = x
    for step in walked.steps:
        out = step.module(out)
    try:
        torch.autograd.backward(out.sum())
    except RuntimeError:
        places = ", ".join(inplace[:5]) + (", …" if len(inplace) > 5 else "")
        message = (
            f"A layer with inplace=true ({places}) writes over values that an earlier layer needs for its "
            "gradient; leave inplace out."
        )
        fault(errors, inplace[0] if len(inplace) == 1 else "/model", "inplace", message)
    finally:
        for step in walked.steps:
            step.module.zero_grad(set_to_none=True)
