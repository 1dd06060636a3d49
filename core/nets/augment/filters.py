"""GaussianBlur, GaussianNoise, JPEG and sharpening: what its neighbours or noise do to a pixel."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional as F

from core.nets.augment.draws import between, normals, to_integer, uniforms, words
from core.nets.augment.rows import bound_of

# B rows in the batch, C channels, H height, W width, K taps of a kernel


def gaussian_blur(
    x_BCHW: Tensor, key_B: Tensor, kernel_size: Sequence[int], sigma: Sequence[float]
) -> Tensor:
    """`kernel_size` is (horizontal, vertical), odd."""
    return blur(x_BCHW, between(uniforms(key_B, 1)[0], *sigma), kernel_size)


def blur(x_BCHW: Tensor, sigma_B: Tensor, kernel_size: Sequence[int]) -> Tensor:
    x = x_BCHW if x_BCHW.is_floating_point() else x_BCHW.to(torch.float32)
    across, down = kernel_size
    x = pad(x, [across // 2, across // 2, down // 2, down // 2], mode="reflect")
    # Shifted sums, not a convolution: how that adds up may change with the number of rows.
    for dim, taps in ((-1, across), (-2, down)):
        weights_BK = _gaussian(sigma_B, taps).to(x.dtype)
        length = x.shape[dim] - taps + 1
        parts = (x.narrow(dim, k, length) * weights_BK[:, k].view(-1, 1, 1, 1) for k in range(taps))
        total = next(parts)
        for part in parts:
            total += part
        x = total
    return x if x_BCHW.is_floating_point() else x.round_().to(x_BCHW.dtype)


def gaussian_noise(x_BCHW: Tensor, key_B: Tensor, mean: float, sigma: float, clip: bool) -> Tensor:
    return add_noise(x_BCHW, normals(key_B, x_BCHW[0].numel()).view(x_BCHW.shape), mean, sigma, clip)


def add_noise(x_BCHW: Tensor, normal_BCHW: Tensor, mean: float, sigma: float, clip: bool) -> Tensor:
    """`mean` and `sigma` are parts of the greatest value."""
    bound = bound_of(x_BCHW.dtype)
    noise = normal_BCHW * (sigma * bound) + mean * bound
    if x_BCHW.is_floating_point():
        out = x_BCHW + noise.to(x_BCHW.dtype)
        return out.clamp_(0, 1) if clip else out
    out = x_BCHW + noise.to(torch.int16)
    return (out.clamp_(0, int(bound)) if clip else out).to(x_BCHW.dtype)


def jpeg(x_BCHW: Tensor, key_B: Tensor, quality: Sequence[int]) -> Tensor:
    """Row by row on the CPU, where the coder is: waits for the device."""
    quality_B = to_integer(words(key_B, 1)[0], quality[1] - quality[0] + 1) + quality[0]
    rows = [F.jpeg(x, q) for x, q in zip(x_BCHW.cpu(), quality_B.tolist(), strict=True)]
    return torch.stack(rows).to(x_BCHW.device)


def sharpen(x_BCHW: Tensor, factor: float) -> Tensor:
    """Away from, or towards, the mean of each pixel and its eight neighbours, in which it counts five times;
    the outermost pixels stay."""
    if min(x_BCHW.shape[-2:]) <= 2:
        return x_BCHW
    x = x_BCHW.to(x_BCHW.dtype if x_BCHW.is_floating_point() else torch.float32, copy=True)
    lines = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    inner = x[..., 1:-1, 1:-1]
    smooth = (lines[..., :-2, :] + lines[..., 1:-1, :] + lines[..., 2:, :] + inner * 4) / 13
    if not x_BCHW.is_floating_point():
        smooth = smooth.round_()
    x[..., 1:-1, 1:-1] = inner + (smooth - inner) * (1 - factor)
    return x.clamp_(0, bound_of(x_BCHW.dtype)).to(x_BCHW.dtype)


def _gaussian(sigma_B: Tensor, taps: int) -> Tensor:
    """[B, K] that sum to 1: exp(-(x / sigma)^2) with the x of torchvision, whose outermost is
    (K - 1) / (2 sqrt 2), so that sigma counts pixels."""
    offsets_K = (torch.arange(taps, device=sigma_B.device) - (taps - 1) / 2) / sqrt(2)
    return torch.softmax(-((offsets_K.double() / sigma_B.view(-1, 1)) ** 2), dim=1)
