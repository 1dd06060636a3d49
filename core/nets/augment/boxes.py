"""Boxes of a drawn area and aspect ratio inside an image, as RandomResizedCrop and RandomErasing take them.

torchvision draws up to ten times and takes the first that fits. Here all ten are drawn at once, and the place
from words of its own, which is the same distribution.
"""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from core.nets.augment.draws import between, to_integer, to_uniform, words

# B rows in the batch, T tries

_TRIES = 10

Boxes = tuple[Tensor, Tensor, Tensor, Tensor]


def crop_boxes(
    heights_B: Tensor, widths_B: Tensor, key_B: Tensor, scale: Sequence[float], ratio: Sequence[float]
) -> Boxes:
    """top, left, height, width of RandomResizedCrop in images of int64 sizes: int64 [B] each. The middle of
    the image, as far as `ratio` lets it, where no try fits."""
    words_NB = words(key_B, 2 * _TRIES + 2)
    width_TB, height_TB = _sides(heights_B * widths_B, words_NB, scale, ratio)
    fits_TB = (width_TB > 0) & (width_TB <= widths_B) & (height_TB > 0) & (height_TB <= heights_B)
    first_TB = _first(fits_TB)
    fits_B = fits_TB.any(0)
    in_ratio_B = widths_B.double() / heights_B
    tall_B = torch.where(in_ratio_B < min(ratio), (widths_B / min(ratio)).round().long(), heights_B)
    broad_B = torch.where(in_ratio_B > max(ratio), (heights_B * max(ratio)).round().long(), widths_B)
    height_B = torch.where(fits_B, (height_TB * first_TB).sum(0), tall_B)
    width_B = torch.where(fits_B, (width_TB * first_TB).sum(0), broad_B)
    spare_down_B, spare_right_B = heights_B - height_B, widths_B - width_B
    top_B = torch.where(fits_B, to_integer(words_NB[-2], spare_down_B + 1), spare_down_B // 2)
    left_B = torch.where(fits_B, to_integer(words_NB[-1], spare_right_B + 1), spare_right_B // 2)
    return top_B, left_B, height_B, width_B


def erased_boxes(
    size: tuple[int, int], key_B: Tensor, scale: Sequence[float], ratio: Sequence[float]
) -> Boxes:
    """The same of RandomErasing. Height and width are 0 where no try fits, which erases nothing."""
    height, width = size
    words_NB = words(key_B, 2 * _TRIES + 2)
    height_TB, width_TB = _sides(torch.full_like(key_B, height * width), words_NB, scale, ratio)
    first_TB = _first((height_TB < height) & (width_TB < width))
    height_B, width_B = (height_TB * first_TB).sum(0), (width_TB * first_TB).sum(0)
    top_B = to_integer(words_NB[-2], height - height_B + 1)
    left_B = to_integer(words_NB[-1], width - width_B + 1)
    return top_B, left_B, height_B, width_B


def _sides(
    areas_B: Tensor, words_NB: Tensor, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """sqrt(area * ratio) and sqrt(area / ratio) of each try, rounded half to even: int64 [T, B]."""
    area_TB = areas_B * between(to_uniform(words_NB[:_TRIES]), *scale)
    log_ratio_TB = between(to_uniform(words_NB[_TRIES : 2 * _TRIES]), log(ratio[0]), log(ratio[1]))
    ratio_TB = log_ratio_TB.exp()
    return (area_TB * ratio_TB).sqrt().round().long(), (area_TB / ratio_TB).sqrt().round().long()


def _first(fits_TB: Tensor) -> Tensor:
    """Whether it fits and none before it does."""
    return fits_TB & (fits_TB.cumsum(0) == 1)
