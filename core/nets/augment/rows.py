"""Rows of a batch that are acted on, and rows that are left alone."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

# B rows in the batch, C channels, H height, W width


def on_chosen(x_BCHW: Tensor, chosen_B: Tensor, change: Callable[..., Tensor], *of_rows: Tensor) -> Tensor:
    """`change(x_BCHW, *of_rows)` where chosen, x elsewhere. `of_rows` are [B, …] and go with their rows.

    A CPU acts on the chosen rows alone; a GPU on all, as to count them it would have to wait.
    """
    num_rows = len(x_BCHW)
    if x_BCHW.device.type != "cpu":
        return torch.where(column(chosen_B), change(x_BCHW, *of_rows), x_BCHW)
    rows = chosen_B.nonzero()[:, 0]
    if len(rows) == 0:
        return x_BCHW
    if len(rows) == num_rows:
        return change(x_BCHW, *of_rows)
    changed = change(x_BCHW.index_select(0, rows), *(values.index_select(0, rows) for values in of_rows))
    # Both ends are copies of whole rows; indexing by a tensor would copy pixel by pixel.
    place_B = torch.arange(num_rows).index_copy(0, rows, torch.arange(num_rows, num_rows + len(rows)))
    return torch.cat([x_BCHW, changed]).index_select(0, place_B)


def column(values_B: Tensor) -> Tensor:
    """[B] beside [B, C, H, W]."""
    return values_B.view(-1, 1, 1, 1)


@lru_cache(maxsize=256)
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a spec, brought to the device once: [C, 1, 1]. Not to be written to."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def bound_of(dtype: torch.dtype) -> float:
    """The greatest value of a pixel."""
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)
