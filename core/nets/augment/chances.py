"""What is done to a row with a probability, and what one transform does with those that it holds."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from core.nets.augment.draws import branch, orders, uniforms, words
from core.nets.augment.rows import on_chosen

# B rows in the batch, C channels, H height, W width

Batched = Callable[[Tensor, Tensor], Tensor]


def sometimes(x_BCHW: Tensor, key_B: Tensor, change: Callable[[Tensor], Tensor], p: float) -> Tensor:
    """`change` draws nothing: a flip, an inversion."""
    return on_chosen(x_BCHW, uniforms(key_B, 1)[0] < p, change)


def sometimes_drawn(x_BCHW: Tensor, key_B: Tensor, change: Batched, p: float) -> Tensor:
    return on_chosen(x_BCHW, uniforms(key_B, 1)[0] < p, change, branch(key_B, 0))


def in_turn(x_BCHW: Tensor, key_B: Tensor, forms: Sequence[Batched]) -> Tensor:
    for place, form in enumerate(forms):
        x_BCHW = form(x_BCHW, branch(key_B, place))
    return x_BCHW


def one_of(x_BCHW: Tensor, key_B: Tensor, forms: Sequence[Batched], p: Sequence[float]) -> Tensor:
    """`p` sums to 1."""
    u_B = uniforms(key_B, 1)[0]
    ends = [*list(accumulate(p))[:-1], 1.0]
    out = x_BCHW
    for place, (form, start, end) in enumerate(zip(forms, [0.0, *ends[:-1]], ends, strict=True)):
        out = on_chosen(out, (u_B >= start) & (u_B < end), form, branch(key_B, place))
    return out


def in_any_order(x_BCHW: Tensor, key_B: Tensor, forms: Sequence[Batched]) -> Tensor:
    order_NB = orders(words(key_B, len(forms)))
    for turn_B in order_NB:
        for place, form in enumerate(forms):
            x_BCHW = on_chosen(x_BCHW, turn_B == place, form, branch(key_B, place))
    return x_BCHW


def unkeyed(x_BCHW: Tensor, key_B: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A deterministic transform among random ones."""
    return change(x_BCHW)


def flip_horizontally(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.flip(-1)


def flip_vertically(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.flip(-2)


def permute_channels(x_BCHW: Tensor, key_B: Tensor) -> Tensor:
    order_CB = orders(words(key_B, x_BCHW.shape[1]))
    rows_B = torch.arange(len(x_BCHW), device=x_BCHW.device)
    places_BC = rows_B.view(-1, 1) * x_BCHW.shape[1] + order_CB.T
    return x_BCHW.flatten(0, 1).index_select(0, places_BC.flatten()).view(x_BCHW.shape)
