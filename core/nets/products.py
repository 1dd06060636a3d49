"""fp32 linear layers on the CPU by oneDNN, where torch's own way is half as fast.

torch multiplies fp32 matrices by MKL, which takes AVX2 on another maker's processor though that has AVX-512;
oneDNN, which torch holds as well, takes what there is. Measured and weighed in docs/decisions/0019.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Multiply-adds below which calling it costs more than it brings.
MIN_PRODUCTS = 2_000_000

_torchs_own = functional.linear


@cache
def is_worth_it() -> bool:
    """Whether this processor has instructions that MKL leaves unused."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch left it untyped
    return has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_intels()


def _is_intels() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: torch's own way is never wrong
        return True


def multiply_by_onednn() -> None:
    """Every linear layer of this process, from now on."""
    functional.linear = linear


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: the same sums in another order. What oneDNN is not for goes torch's
    way."""
    if (
        input.dim() < 2
        or weight.dtype is not torch.float32
        or input.numel() * weight.shape[0] < MIN_PRODUCTS
        or input.dtype is not torch.float32
        or not (weight.is_cpu and input.is_cpu)
        or type(input) is not Tensor
        or type(weight) not in (Tensor, nn.Parameter)
        or torch.is_autocast_enabled("cpu")
        or torch._C._functorch.peek_interpreter_stack() is not None  # inside vmap and its like
    ):
        return _torchs_own(input, weight, bias)
    # A view of what comes out, not what comes out: what follows may write into it.
    rows = input if input.dim() == 2 else input.flatten(0, -2)
    product = Linear.apply(rows, weight, bias) if torch.is_grad_enabled() else multiply(rows, weight, bias)
    return product if input.dim() == 2 else product.view(*input.shape[:-1], -1)


class Linear(torch.autograd.Function):
    """Of a matrix of rows. Differentiable as often as one likes: where gradients have gradients the products
    below are recorded again."""

    @staticmethod
    def forward(ctx: Any, rows_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows_BI, weight_OI)
        return multiply(rows_BI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, ...]:
        rows_BI, weight_OI = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(grad_BO, weight_OI.t()) if needs_rows else None,
            linear(grad_BO.t(), rows_BI.t()) if needs_weight else None,
            grad_BO.sum(0) if needs_bias else None,
        )


def multiply(rows_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """[B, O]."""
    rows_BI, weight_OI = _laid_out(rows_BI), _laid_out(weight_OI)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows_BI, weight_OI, bias_O, "none", [], "")
    return product


def _laid_out(matrix: Tensor) -> Tensor:
    """oneDNN reads what is contiguous, or the transpose of that: not, say, one row seen many times."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
