"""RandomErasing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.nets.augment.boxes import erased_boxes
from core.nets.augment.draws import branch, normals, uniforms
from core.nets.augment.rows import column, constants, on_chosen

# B rows in the batch, C channels, H height, W width


def random_erasing(
    x_BCHW: Tensor,
    key_B: Tensor,
    p: float,
    scale: Sequence[float],
    ratio: Sequence[float],
    value: Sequence[float] | None,
) -> Tensor:
    """`value` is one number, or one a channel; None puts normal noise."""
    size = (x_BCHW.shape[-2], x_BCHW.shape[-1])
    top_B, left_B, height_B, width_B = erased_boxes(size, branch(key_B, 0), scale, ratio)
    chosen_B = uniforms(key_B, 1)[0] < p
    if value is None:
        return on_chosen(x_BCHW, chosen_B, erase_to_noise, branch(key_B, 1), top_B, left_B, height_B, width_B)
    value_C11 = constants(tuple(value), torch.float32, x_BCHW.device)
    # As torchvision assigns: a float becomes a pixel by dropping what is behind the point.
    return erase(x_BCHW, (top_B, left_B, height_B * chosen_B, width_B), value_C11.to(x_BCHW.dtype))


def erase_to_noise(x_BCHW: Tensor, key_B: Tensor, *boxes: Tensor) -> Tensor:
    noise_BCHW = normals(key_B, x_BCHW[0].numel()).view(x_BCHW.shape)
    return erase(x_BCHW, boxes, noise_BCHW.to(x_BCHW.dtype))


def erase(x_BCHW: Tensor, boxes: Sequence[Tensor], value: Tensor) -> Tensor:
    """`value`, as far as it goes [B, C, H, W], inside the boxes: top, left, height, width, int64 [B] each."""
    top_B, left_B, height_B, width_B = map(column, boxes)
    lines = torch.arange(x_BCHW.shape[-2], device=x_BCHW.device).view(-1, 1)
    columns = torch.arange(x_BCHW.shape[-1], device=x_BCHW.device)
    inside = (lines >= top_B) & (lines < top_B + height_B)
    inside = inside & ((columns >= left_B) & (columns < left_B + width_B))
    return torch.where(inside, value, x_BCHW)
