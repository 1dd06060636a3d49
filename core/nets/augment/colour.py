"""ColorJitter and RandomPhotometricDistort: brightness, contrast, saturation and hue, a factor a row."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.nets.augment.chances import permute_channels
from core.nets.augment.draws import between, branch, orders, to_uniform, uniforms, words
from core.nets.augment.rows import bound_of, column, on_chosen

# B rows in the batch, C channels (1 or 3), H height, W width

Range = Sequence[float] | None

#: Means are summed in whole multiples of this, as a sum of floats depends on its order.
_GRAIN = 2.0**-24


def adjust_brightness(x_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    return _pixels(x_BCHW * column(factor_B), x_BCHW.dtype)


def adjust_contrast(x_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Away from, or towards, the mean grey of the image."""
    return _blend(x_BCHW, _mean(_grey(x_BCHW)), factor_B)


def adjust_saturation(x_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Away from, or towards, each pixel's grey."""
    return x_BCHW if x_BCHW.shape[1] == 1 else _blend(x_BCHW, _grey(x_BCHW), factor_B)


def adjust_hue(x_BCHW: Tensor, turn_B: Tensor) -> Tensor:
    """Colours turned by a part of the circle, in -1/2..1/2: Smith 1978, "Color gamut transform pairs",
    https://doi.org/10.1145/965139.807361, with HSV to RGB as V - V S max(0, min(k, 4 - k, 1)), where
    k = (n + 6 H) mod 6 and n = 5, 3, 1."""
    if x_BCHW.shape[1] == 1:
        return x_BCHW
    is_float = x_BCHW.is_floating_point()
    x = x_BCHW if is_float else x_BCHW.to(torch.float32) * (1 / bound_of(x_BCHW.dtype))
    r, g, b = x.unbind(1)
    low, high = x.amin(1), x.amax(1)
    span = high - low
    # A grey has no hue, and none is needed: nothing is taken from V then.
    divisor = torch.where(span == 0, 1, span)
    sixth = torch.where(high == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor)
    sixth = torch.where(high == r, (g - b) / divisor, sixth)
    turned = sixth + turn_B.to(x.dtype).view(-1, 1, 1) * 6
    channels = []
    for n in (5, 3, 1):
        k = (turned + n).remainder(6)
        channels.append(high - span * torch.minimum(k, 4 - k).clamp(0, 1))
    out = torch.stack(channels, dim=1)
    return out if is_float else (out * (bound_of(x_BCHW.dtype) + 1 - 1e-3)).to(x_BCHW.dtype)


_ADJUST: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


def color_jitter(
    x_BCHW: Tensor, key_B: Tensor, brightness: Range, contrast: Range, saturation: Range, hue: Range
) -> Tensor:
    """In an order of each row's own."""
    words_NB = words(key_B, 8)
    ranges = [(i, r) for i, r in enumerate((brightness, contrast, saturation, hue)) if r is not None]
    factors = {i: between(to_uniform(words_NB[4 + i]), *r).float() for i, r in ranges}
    if not ranges:
        return x_BCHW
    return jitter(x_BCHW, orders(torch.stack([words_NB[i] for i, _ in ranges])), list(factors.items()))


def jitter(x_BCHW: Tensor, order_NB: Tensor, factors: list[tuple[int, Tensor]]) -> Tensor:
    """`factors` are (which adjustment, one factor a row), and each row takes them as its column of
    `order_NB` has their places."""
    for turn_B in order_NB:
        for place, (which, factor_B) in enumerate(factors):
            x_BCHW = on_chosen(x_BCHW, turn_B == place, _ADJUST[which], factor_B)
    return x_BCHW


def photometric_distort(
    x_BCHW: Tensor,
    key_B: Tensor,
    brightness: Sequence[float],
    contrast: Sequence[float],
    saturation: Sequence[float],
    hue: Sequence[float],
    p: float,
) -> Tensor:
    """Each with probability p; contrast before or after saturation and hue; channels in any order."""
    u_NB = uniforms(key_B, 10)
    first_B = u_NB[5] < 0.5
    does_B = u_NB[:5] < p
    light_B, contrast_B, saturation_B, hue_B = (
        between(u, *bounds).float()
        for u, bounds in zip(u_NB[6:], (brightness, contrast, saturation, hue), strict=True)
    )
    x_BCHW = on_chosen(x_BCHW, does_B[0], adjust_brightness, light_B)
    x_BCHW = on_chosen(x_BCHW, does_B[1] & first_B, adjust_contrast, contrast_B)
    x_BCHW = on_chosen(x_BCHW, does_B[2], adjust_saturation, saturation_B)
    x_BCHW = on_chosen(x_BCHW, does_B[3], adjust_hue, hue_B)
    x_BCHW = on_chosen(x_BCHW, does_B[1] & ~first_B, adjust_contrast, contrast_B)
    return on_chosen(x_BCHW, does_B[4], permute_channels, branch(key_B, 0))


def _grey(x_BCHW: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, float [B, 1, H, W]; whole levels where pixels are."""
    if x_BCHW.shape[1] == 1:
        return x_BCHW if x_BCHW.is_floating_point() else x_BCHW.to(torch.float32)
    r, g, b = x_BCHW.unbind(1)
    grey: Tensor = (r * 0.2989 + g * 0.587 + b * 0.114).unsqueeze(1)
    return grey if x_BCHW.is_floating_point() else grey.floor_()


def _mean(grey_B1HW: Tensor) -> Tensor:
    count = grey_B1HW.shape[-2] * grey_B1HW.shape[-1]
    total = (grey_B1HW.double() * (1 / _GRAIN)).long().sum((1, 2, 3), keepdim=True)
    return (total.double() * (_GRAIN / count)).to(grey_B1HW.dtype)


def _blend(x_BCHW: Tensor, other: Tensor, factor_B: Tensor) -> Tensor:
    factor = column(factor_B).to(other.dtype)
    return _pixels(x_BCHW * factor + other * (1 - factor), x_BCHW.dtype)


def _pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    # Not rounded, as torchvision doesn't.
    return x.clamp_(0, bound_of(dtype)).to(dtype)
