"""Containers with more than one way through: a residual block, and branches side by side."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

# B rows in the batch


def sequential(layers: Sequence[nn.Module]) -> nn.Sequential:
    """The layers one after another; they nest."""
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """`layers(x) + x`, or `layers(x) + shortcut(x)` where the shapes of the two differ (He et al. 2015, "Deep
    Residual Learning for Image Recognition", equations 1 and 2, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, layers: Sequence[nn.Module], shortcut: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(*shortcut) if shortcut is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x) + self.shortcut(x)
        return out


class Parallel(nn.Module):
    """Every branch gets the same input; their outputs are concatenated along `dim`, or summed."""

    def __init__(
        self, branches: Sequence[nn.Module], combine: Literal["concat", "sum"] = "concat", dim: int = 1
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.combine = combine
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return combined([branch(x) for branch in self.branches], self.combine, self.dim)


def combined(outputs: Sequence[Tensor], combine: Literal["concat", "sum"], dim: int) -> Tensor:
    if combine == "concat":
        return torch.cat(list(outputs), dim=dim)
    total = outputs[0]
    for output in outputs[1:]:
        total = total + output
    return total
