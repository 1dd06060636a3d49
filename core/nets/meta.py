"""Shortcuts on the meta device: the same shapes as torch's own, in a fraction of the time.

There a tensor has a shape and no numbers, and many of torch's kernels are written in Python in small steps: a
batch norm takes milliseconds where its answer is "as the input". And for meta tensors torch chooses attention
and recurrence as for a device it doesn't know; `AsOnCpu` chooses as a CPU does, which saves other tensors.
"""

from collections.abc import Callable, Sequence
from types import NotImplementedType
from typing import Any

import torch
from torch import _VF, Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# B rows in the batch, T steps of a sequence, H width of a recurrent layer

aten = torch.ops.aten

#: Bytes that oneDNN keeps for the gradient of an LSTM, for each step, row and unit: its gates, its states and
#: their differences (seen: 60.8 to 61.8 on sizes that need little padding).
_LSTM_WORKSPACE_BYTES = 61

_Shortcut = Callable[..., Any]


class QuickMeta(TorchDispatchMode):
    """Within it, operations of `_SHORTCUTS` on meta tensors take the shortcut; all else is torch's."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        shortcut = _SHORTCUTS.get(func)
        if shortcut is not None and isinstance(args[0], Tensor) and args[0].is_meta:
            out = shortcut(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return func(*args, **kwargs)


class AsOnCpu(TorchFunctionMode):
    """Within it, attention and LSTMs of meta tensors save for their gradients what they save on a CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        chosen = _ON_CPU.get(func)
        if chosen is not None and args and isinstance(args[0], Tensor) and args[0].is_meta:
            out = chosen(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | NotImplementedType:
    """A CPU drops nothing in its fused attention, which doesn't keep the [T, T] weights."""
    if attn_mask is not None or dropout_p > 0 or enable_gqa or query.dim() != 4 or query.shape != value.shape:
        return NotImplemented
    out: Tensor
    out, _ = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal, scale=scale)
    return out


def _lstm(
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    is_training: bool,
    is_bidirectional: bool,
    is_batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor] | NotImplementedType:
    """One operation of oneDNN for each layer and direction, in place of one for each step."""
    directions, each = 2 if is_bidirectional else 1, 4 if has_biases else 2
    if len(weights) != num_layers * directions * each:  # one more with projections, which oneDNN lacks
        return NotImplemented
    width = state[0].shape[-1]
    x_TBF = (x.transpose(0, 1) if is_batch_first else x).contiguous()
    hidden, cells = [], []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            own = list(weights[place * each : (place + 1) * each])
            own += [own[0].new_zeros(own[0].shape[0]) for _ in range(4 - each)]
            out, h, c, _ = aten.mkldnn_rnn_layer(
                x_TBF, *own, state[0][place], state[1][place], direction > 0, [], 2, width, num_layers,
                has_biases, is_bidirectional, is_batch_first, is_training,
            )  # fmt: skip
            outputs.append(out)
            hidden.append(h)
            cells.append(c)
        x_TBF = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout > 0 and is_training and layer < num_layers - 1:
            x_TBF = F.dropout(x_TBF, dropout)
    out = x_TBF.transpose(0, 1) if is_batch_first else x_TBF
    return out, torch.stack(hidden), torch.stack(cells)


def _lstm_layer(
    x_TBF: Tensor, w: Tensor, u: Tensor, a: Tensor, b: Tensor, h_BH: Tensor, c_BH: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """torch's own for meta tells no workspace."""
    steps, rows = x_TBF.shape[:2]
    size_bytes = _LSTM_WORKSPACE_BYTES * steps * h_BH.numel()
    return (
        x_TBF.new_empty(steps, rows, h_BH.shape[-1]),
        torch.empty_like(h_BH),
        torch.empty_like(c_BH),
        x_TBF.new_empty(size_bytes, dtype=torch.uint8),
    )


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
) -> tuple[Tensor, Tensor, Tensor] | NotImplementedType:
    over = len(shape)
    fits = [list(part.shape) == list(shape) for part in (weight, bias) if part is not None]
    if list(x.shape[-over:]) != list(shape) or not all(fits):
        return NotImplemented  # torch says what it expects
    mean = x.new_empty([*x.shape[:-over], *[1] * over])
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


def _as_both(a: Tensor, b: Any, **_: Any) -> Tensor | NotImplementedType:
    """Of equal tensors; torch knows how others are broadcast and promoted."""
    alike = isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype and b.is_meta
    return torch.empty_like(a) if alike else NotImplemented


def _itself(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


_SHORTCUTS: dict[Any, _Shortcut] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.mkldnn_rnn_layer.default: _lstm_layer,
    aten.add.Tensor: _as_both,
    aten.mul.Tensor: _as_both,
    aten.threshold_backward.default: _as_first,
    **dict.fromkeys((aten.relu.default, aten.gelu.default, aten.silu.default), _as_first),
    **dict.fromkeys((aten.gelu_backward.default, aten.silu_backward.default), _as_first),
    **dict.fromkeys(
        (aten.normal_.default, aten.uniform_.default, aten.fill_.Scalar, aten.zero_.default), _itself
    ),
}
_ON_CPU: dict[Any, _Shortcut] = {F.scaled_dot_product_attention: _attention, _VF.lstm: _lstm}
