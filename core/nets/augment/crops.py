"""RandomCrop and RandomResizedCrop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from core.nets.augment.boxes import Boxes, crop_boxes
from core.nets.augment.draws import to_integer, words
from core.nets.augment.rows import bound_of

# B rows in the batch, C channels, H height, W width; h and w those of the crop

Fill = float | Sequence[float] | None


@dataclass(frozen=True)  # a script that this code is cut out for has no msgspec
class Padding:
    """What is put around an image before it is cropped: pixels `left`, `right`, `top` and `bottom`, and with
    `if_needed` as many more as it lacks, on both sides."""

    left: int
    right: int
    top: int
    bottom: int
    if_needed: bool
    fill: Fill
    mode: str


def random_crop(x_BCHW: Tensor, key_B: Tensor, size: tuple[int, int], padding: Padding) -> Tensor:
    """Raises ValueError where the padded image is smaller than the crop."""
    padded = _padded(x_BCHW, size, padding)
    words_NB = words(key_B, 2)
    top_B = to_integer(words_NB[0], padded.shape[-2] - size[0] + 1)
    left_B = to_integer(words_NB[1], padded.shape[-1] - size[1] + 1)
    return windows(padded, top_B, left_B, size)


def random_crop_rows(
    rows: Sequence[Tensor], key_B: Tensor, size: tuple[int, int], padding: Padding
) -> Tensor:
    """`random_crop` of [C, H, W] images of differing sizes."""
    padded = [_padded(row, size, padding) for row in rows]
    spare_B2 = torch.tensor([[x.shape[-2] - size[0], x.shape[-1] - size[1]] for x in padded])
    places = to_integer(words(key_B, 2), (spare_B2.T + 1).to(key_B.device)).T.tolist()
    return torch.stack([F.crop(x, *place, *size) for x, place in zip(padded, places, strict=True)])


def windows(x_BCHW: Tensor, top_B: Tensor, left_B: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w]: from each image the window at its own place, which must lie inside."""
    x_BCHW = x_BCHW.contiguous()
    (num_rows, channels, height, width), (h, w) = x_BCHW.shape, size
    device = x_BCHW.device
    planes_BC1 = torch.arange(num_rows * channels, device=device).view(num_rows, channels, 1)
    lines_h = torch.arange(h, device=device)
    starts_BCh = (planes_BC1 * height + top_B.view(-1, 1, 1) + lines_h) * width + left_B.view(-1, 1, 1)
    # Every run of w pixels in the batch as a row of a matrix: a line of a window is copied as one piece.
    runs = x_BCHW.view(-1).as_strided((x_BCHW.numel() - w + 1, w), (1, 1))
    return runs.index_select(0, starts_BCh.flatten()).view(num_rows, channels, h, w)


def random_resized_crop(
    x_BCHW: Tensor,
    key_B: Tensor,
    size: Sequence[int],
    scale: Sequence[float],
    ratio: Sequence[float],
    interpolation: InterpolationMode,
    antialias: bool,
) -> Tensor:
    sizes_B2 = torch.stack([torch.full_like(key_B, side) for side in x_BCHW.shape[-2:]])
    boxes = crop_boxes(sizes_B2[0], sizes_B2[1], key_B, scale, ratio)
    if x_BCHW.device.type != "cpu" and interpolation is InterpolationMode.BILINEAR and antialias:
        return resized_boxes(x_BCHW, boxes, size)
    return resized_rows(list(x_BCHW), boxes, size, interpolation, antialias)


def random_resized_crop_rows(
    rows: Sequence[Tensor],
    key_B: Tensor,
    size: Sequence[int],
    scale: Sequence[float],
    ratio: Sequence[float],
    interpolation: InterpolationMode,
    antialias: bool,
) -> Tensor:
    """`random_resized_crop` of [C, H, W] images of differing sizes."""
    sizes_2B = torch.tensor([row.shape[-2:] for row in rows]).T.to(key_B.device)
    boxes = crop_boxes(sizes_2B[0], sizes_2B[1], key_B, scale, ratio)
    return resized_rows(rows, boxes, size, interpolation, antialias)


def resized_rows(
    rows: Sequence[Tensor],
    boxes: Boxes,
    size: Sequence[int],
    interpolation: InterpolationMode,
    antialias: bool,
) -> Tensor:
    """torchvision's own, one after another: on a CPU its uint8 code is faster than any product of matrices.
    Waits for the device."""
    places = torch.stack(boxes).T.tolist()
    return torch.stack(
        [
            F.resized_crop(row, *place, size, interpolation=interpolation, antialias=antialias)
            for row, place in zip(rows, places, strict=True)
        ]
    )


def resized_boxes(x_BCHW: Tensor, boxes: Boxes, size: Sequence[int]) -> Tensor:
    """Bilinear with antialiasing: a matrix for the lines of each image and one for its columns."""
    top_B, left_B, height_B, width_B = boxes
    down_B1hH = _resizing(top_B, height_B, size[0], x_BCHW.shape[-2])
    right_B1wW = _resizing(left_B, width_B, size[1], x_BCHW.shape[-1])
    x = x_BCHW if x_BCHW.is_floating_point() else x_BCHW.to(torch.float32)
    out = down_B1hH.to(x.dtype) @ x @ right_B1wW.to(x.dtype).mT
    if x_BCHW.is_floating_point():
        return out
    return out.round_().clamp_(0, bound_of(x_BCHW.dtype)).to(x_BCHW.dtype)


def _resizing(start_B: Tensor, length_B: Tensor, out: int, side: int) -> Tensor:
    """[B, 1, out, side] weights. Output i looks at c = start + (i + 1/2) * length / out, with the triangle
    max(0, 1 - |j + 1/2 - c| / max(length / out, 1)) over the pixels j of the box, made to sum to 1."""
    start_B11, length_B11 = start_B.view(-1, 1, 1), length_B.view(-1, 1, 1)
    step_B11 = length_B11.to(torch.float32) / out
    centre_Bo1 = (torch.arange(out, device=start_B.device).view(-1, 1) + 0.5) * step_B11
    place_B1s = torch.arange(side, device=start_B.device) - start_B11
    weight_Bos = 1 - ((place_B1s + 0.5) - centre_Bo1).abs() / step_B11.clamp(min=1)
    inside_B1s = (place_B1s >= 0) & (place_B1s < length_B11)
    weight_Bos = weight_Bos.clamp(min=0) * inside_B1s
    return (weight_Bos / weight_Bos.sum(-1, keepdim=True)).unsqueeze(1)


def _padded(x: Tensor, size: tuple[int, int], padding: Padding) -> Tensor:
    left, right, top, bottom = padding.left, padding.right, padding.top, padding.bottom
    height, width = x.shape[-2] + top + bottom, x.shape[-1] + left + right
    if padding.if_needed:
        down, across = max(size[0] - height, 0), max(size[1] - width, 0)
        left, right, top, bottom = left + across, right + across, top + down, bottom + down
        height, width = height + 2 * down, width + 2 * across
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"RandomCrop takes windows of {list(size)}, and images are {[height, width]} with their padding; "
            "Resize them before it, or set pad_if_needed."
        )
    if not any((left, right, top, bottom)):
        return x
    padded: Tensor = F.pad(x, [left, top, right, bottom], fill=padding.fill, padding_mode=padding.mode)
    return padded
