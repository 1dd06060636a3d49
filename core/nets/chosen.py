"""Attention and recurrence on the meta device as a CPU computes them.

torch chooses by the device how it computes these, and so what it saves for their gradients; for meta it
chooses as for a device it doesn't know, and goes through a sequence in Python, step by step. Registered here
for meta alone, for the whole process: one operation for a sequence of any length, with the bytes of a CPU's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# B rows in the batch, T steps of a sequence, F features of a step, H width of a recurrent layer, G gates

aten = torch.ops.aten

#: Bytes that oneDNN keeps for the gradient of an LSTM's step and row: for each unit (gates, cells), and for
#: each of units or features, whichever are more (states and their differences). Fitted to what its workspaces
#: have between 32 and 512 wide: within 7 %; very small ones have more padding.
_LSTM_UNIT_BYTES, _LSTM_STATE_BYTES = 37, 25
#: Floats that autograd keeps for each step, row and unit, by the number of gates. Of a GRU: three gates in
#: one tensor, two copies made by products in place, the new state, the state itself. Of an RNN: the state.
_KEPT = {3: 7, 1: 1}

#: One layer in one direction: x [T, B, F], four parameters, states [B, H], is reversed.
_Layer = Callable[[Tensor, Sequence[Tensor], tuple[Tensor, ...], bool], tuple[Tensor, ...]]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """A CPU's fused attention doesn't keep the weights [T, T]; it drops none of them."""
    out: Tensor
    is_plain = attn_mask is None and dropout_p == 0 and not enable_gqa
    if is_plain and query.dim() == 4 and query.shape[-1] == key.shape[-1] == value.shape[-1]:
        out, _ = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, is_causal, scale=scale
        )
        return out
    out, _ = aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return out


def _lstm(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], has_biases: bool, *how: Any) -> Any:
    if states[0].shape[-1] != states[1].shape[-1]:
        # oneDNN knows no projections. Not `decompose`: that of torch 2.11 gives the states one axis too many.
        stepwise = torch._C.DispatchKey.CompositeImplicitAutograd
        return aten.lstm.input._op_dk(stepwise, x, states, weights, has_biases, *how)
    return _recurrent(_lstm_layer, x, states, weights, has_biases, *how)


def _gru(x: Tensor, state: Tensor, weights: Sequence[Tensor], has_biases: bool, *how: Any) -> Any:
    return _recurrent(_stepwise_layer, x, [state], weights, has_biases, *how)


def _recurrent(
    layer: _Layer,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    is_training: bool,
    is_bidirectional: bool,
    is_batch_first: bool,
) -> tuple[Tensor, ...]:
    """(output, last states…) of all layers and directions."""
    directions, each = 2 if is_bidirectional else 1, 4 if has_biases else 2
    x_TBF = (x.transpose(0, 1) if is_batch_first else x).contiguous()
    last: list[tuple[Tensor, ...]] = []
    for number in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = number * directions + direction
            own = list(weights[place * each : (place + 1) * each])
            own += [own[0].new_zeros(own[0].shape[0]) for _ in range(4 - each)]
            out, *after = layer(x_TBF, own, tuple(state[place] for state in states), direction > 0)
            outputs.append(out)
            last.append(tuple(after))
        x_TBF = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout > 0 and is_training and number < num_layers - 1:
            x_TBF = F.dropout(x_TBF, dropout)
    output = x_TBF.transpose(0, 1) if is_batch_first else x_TBF
    return output, *[torch.stack(parts) for parts in zip(*last, strict=True)]


def _lstm_layer(
    x_TBF: Tensor, weights: Sequence[Tensor], states: tuple[Tensor, ...], is_reversed: bool
) -> tuple[Tensor, ...]:
    width = states[0].shape[-1]
    out, h, c, _ = aten.mkldnn_rnn_layer(
        x_TBF, *weights, *states, is_reversed, [], 2, width, 1, True, False, False, True
    )
    return out, h, c


def _stepwise_layer(
    x_TBF: Tensor, weights: Sequence[Tensor], states: tuple[Tensor, ...], is_reversed: bool
) -> tuple[Tensor, ...]:
    """The gates of the input for all steps at once, then the steps."""
    inputs_TBG: Tensor = _Unbind.apply(F.linear(x_TBF, weights[0], weights[2]))
    out: Tensor = _Steps.apply(inputs_TBG, states[0], weights[1], weights[3])
    return out, out[-1]


class _Steps(torch.autograd.Function):
    """The steps of a GRU or an RNN, shapes alone."""

    @staticmethod
    def forward(ctx: Any, inputs_TBG: Tensor, h_BH: Tensor, w_GH: Tensor, b_G: Tensor) -> Tensor:
        steps, (rows, width) = inputs_TBG.shape[0], h_BH.shape
        kept = inputs_TBG.new_empty(_KEPT[w_GH.shape[0] // width] * steps * rows * width)
        ctx.save_for_backward(h_BH, w_GH, b_G, kept)
        return inputs_TBG.new_empty(steps, rows, width)

    @staticmethod
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        h_BH, w_GH, b_G, _ = ctx.saved_tensors
        # What is kept goes as the gates' gradients come, so these are `_Unbind`'s to count.
        grads: list[Tensor | None] = [grad_TBH.new_empty(1, 1, 1).expand(*grad_TBH.shape[:2], len(w_GH))]
        for tensor, is_needed in zip((h_BH, w_GH, b_G), ctx.needs_input_grad[1:], strict=True):
            grads.append(torch.empty_like(tensor) if is_needed else None)
        return tuple(grads)


class _Unbind(torch.autograd.Function):
    """What comes in, whose gradient is one tensor a step and then all of them stacked."""

    @staticmethod
    def forward(ctx: Any, inputs_TBG: Tensor) -> Tensor:
        return inputs_TBG.view_as(inputs_TBG)

    @staticmethod
    def backward(ctx: Any, grad_TBG: Tensor) -> Tensor:
        steps_TBG = grad_TBG.new_empty(grad_TBG.shape)
        return torch.empty_like(steps_TBG)


def mkldnn_rnn_layer(
    x_TBF: Tensor, w: Tensor, u: Tensor, a: Tensor, b: Tensor, h_BH: Tensor, c_BH: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """torch's own for meta has an empty workspace."""
    (steps, rows, features), width = x_TBF.shape, h_BH.shape[-1]
    each = _LSTM_UNIT_BYTES * width + _LSTM_STATE_BYTES * max(width, features)
    workspace = x_TBF.new_empty(steps * rows * each, dtype=torch.uint8)
    out_TBH = x_TBF.new_empty(steps, rows, width)
    return out_TBH, torch.empty_like(h_BH), torch.empty_like(c_BH), workspace


#: It holds what is registered, and takes it back when it goes.
_LIBRARY = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
for _name, _function in (
    ("scaled_dot_product_attention", _attention),
    ("lstm.input", _lstm),
    ("gru.input", _gru),
    ("rnn_tanh.input", _gru),
    ("rnn_relu.input", _gru),
):
    _LIBRARY.impl(_name, _function, "AutogradMeta")  # type: ignore[no-untyped-call]
