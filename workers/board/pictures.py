"""Batches of images as a person sees them: what normalising did is undone, and they are made small."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nets.transforms import flatten

# B rows, C channels, H height, W width

NORMALIZE = "Normalize"


def is_picture(inputs: Tensor) -> bool:
    return inputs.ndim == 4 and inputs.shape[1] in (1, 3)


def seen(inputs_BCHW: Tensor, transforms: Sequence[dict[str, Any]] | None, side: int) -> Tensor:
    """[B, C, h, w] float32 in 0..1 on the CPU, with h and w at most `side`. Bytes are brought to 0..1; of
    other values that no Normalize explains those outside are cut off."""
    images = inputs_BCHW.detach().cpu()
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    images = _denormalized(images, transforms or [])
    height, width = images.shape[2:]
    if max(height, width) > side:
        scale = side / max(height, width)
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        images = F.interpolate(images, size, mode="area")
    return images.nan_to_num(0.0).clamp(0, 1).contiguous()


def sheet(images_BCHW: Tensor) -> Tensor:
    """uint8 [H', W', 3]: a square of images, row by row, black where there are none left, as the embedding
    projector expects its sprites."""
    count, _, height, width = images_BCHW.shape
    across = int(torch.tensor(float(count)).sqrt().ceil())
    padded = torch.zeros(across * across, 3, height, width)
    padded[:count] = images_BCHW.expand(count, 3, height, width)
    rows = padded.reshape(across, across, 3, height, width).permute(0, 3, 1, 4, 2)
    return (rows.reshape(across * height, across * width, 3) * 255).round().to(torch.uint8)


def _denormalized(images_BCHW: Tensor, transforms: Sequence[dict[str, Any]]) -> Tensor:
    """The last one is undone first."""
    for component in reversed(flatten(transforms)):
        if component["type"] == NORMALIZE:
            mean_C, std_C = torch.tensor(component["mean"]), torch.tensor(component["std"])
            images_BCHW = images_BCHW * std_C[:, None, None] + mean_C[:, None, None]
    return images_BCHW
