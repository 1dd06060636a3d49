"""Layers that write into their input may spoil what an earlier layer saved for its gradient: told before
the first step, which would raise."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from core.faults import fault, join
from core.nets.build import build_net
from modelyard.specs import ProblemError


def check_inplace(model: dict[str, Any], xs: tuple[Tensor, ...], errors: list[ProblemError]) -> None:
    """Where a layer of a resolved model says `inplace`, one forward and backward pass of the meta batch, so
    that autograd's own version counts decide."""
    inplace = list(_inplace(model, "/model"))
    if not inplace:
        return
    with torch.device("meta"):
        net = build_net(model)
    try:
        out = net(*xs)
        parts = out if isinstance(out, tuple) else (out,)
        torch.autograd.backward([part.sum() for part in parts])
    except RuntimeError:
        places = ", ".join(inplace[:5]) + (", …" if len(inplace) > 5 else "")
        message = (
            f"A layer with inplace=true ({places}) writes over values that an earlier layer needs for its "
            "gradient; leave inplace out."
        )
        fault(errors, inplace[0] if len(inplace) == 1 else "/model", "inplace", message)


def _inplace(value: Any, pointer: str) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("inplace") is True:
            yield pointer
        for word, child in value.items():
            yield from _inplace(child, join(pointer, word))
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _inplace(child, join(pointer, place))
