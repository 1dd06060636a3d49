"""Shortcuts on the meta device: the same shapes as torch's own, in a fraction of the time.

There a tensor has a shape and no numbers, and many of torch's kernels are written in Python in small steps: a
batch norm takes milliseconds where its answer is "as the input". Within `QuickMeta` such operations take a
shortcut. What torch chooses by the device (attention, recurrence) stands in `chosen.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.nets import chosen

aten = torch.ops.aten

#: None where it is torch's to answer.
_Shortcut = Callable[..., Any]


class QuickMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Within it, operations of `_SHORTCUTS` on meta tensors take the shortcut; all else is torch's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        shortcut = _SHORTCUTS.get(func)
        if shortcut is not None and isinstance(args[0], Tensor) and args[0].is_meta:
            out = shortcut(*args, **kwargs)
            if out is not None:
                return out
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, is_training: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty(x.shape[1] if is_training else 0)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


def _batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, mask: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    return _wanted(mask, x, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]))


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor] | None:
    over = len(shape)
    fits = [list(part.shape) == list(shape) for part in (weight, bias) if part is not None]
    if list(x.shape[-over:]) != list(shape) or not all(fits):
        return None  # torch says what it expects
    mean: Tensor = x.new_empty([*x.shape[:-over], *[1] * over])
    return torch.empty_like(x), mean, torch.empty_like(mean)


def _layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    shape: Sequence[int],
    a: Any,
    b: Any,
    weight: Any,
    bias: Any,
    mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    return _wanted(mask, x, x.new_empty(shape), x.new_empty(shape))


def _wanted(mask: Sequence[bool], *like: Tensor) -> tuple[Tensor | None, ...]:
    """A gradient for each tensor that needs one."""
    return tuple(torch.empty_like(each) if flag else None for flag, each in zip(mask, like, strict=True))


def _as_first(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _as_both(a: Tensor, b: Any, **_: Any) -> Tensor | None:
    """Of equal tensors; torch knows how others are broadcast and promoted."""
    alike = isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype and b.is_meta
    return torch.empty_like(a) if alike else None


def _itself(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


_SHORTCUTS: dict[Any, _Shortcut] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.mkldnn_rnn_layer.default: chosen.mkldnn_rnn_layer,
    aten.add.Tensor: _as_both,
    aten.mul.Tensor: _as_both,
    aten.threshold_backward.default: _as_first,
    **dict.fromkeys((aten.relu.default, aten.gelu.default, aten.silu.default), _as_first),
    **dict.fromkeys((aten.gelu_backward.default, aten.silu_backward.default), _as_first),
    **dict.fromkeys(
        (aten.normal_.default, aten.uniform_.default, aten.fill_.Scalar, aten.zero_.default), _itself
    ),
}
