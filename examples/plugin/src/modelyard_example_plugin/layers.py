"""Activations whose gradients are written by hand."""

from typing import Any

import torch
from torch import Tensor, nn


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passes: Tensor = x.abs() <= 1
        return grads[0] * passes


class SignActivation(nn.Module):
    """+1 or -1. The gradient passes straight through where the input is between -1 and 1, and is zero
    elsewhere (Hubara et al. 2016, "Binarized neural networks", equation 4,
    https://arxiv.org/abs/1602.02830)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Sign.apply(x)
        return out


class _Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.beta = beta
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(ctx.beta * x)
        return grads[0] * gate * (1 + ctx.beta * x * (1 - gate)), None


class ScaledSwish(nn.Module):
    """x * sigmoid(beta * x), which keeps its input alone for the gradient (Ramachandran, Zoph and Le 2017,
    "Searching for activation functions", https://arxiv.org/abs/1710.05941)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Swish.apply(x, self.beta)
        return out
