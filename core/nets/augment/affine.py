"""RandomRotation, RandomAffine and RandomPerspective: where each pixel comes from, and what is there."""

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from core.nets.augment.draws import between, to_integer, uniforms, words
from core.nets.augment.rows import constants

# B rows in the batch, C channels, H height, W width

Fill = float | Sequence[float] | None
Range = Sequence[float]


def random_rotation(
    x_BCHW: Tensor, key_B: Tensor, degrees: Range, mode: str, centre: Sequence[float] | None, fill: Fill
) -> Tensor:
    """Counter-clockwise, about `centre` (x, y) or the middle."""
    angle_B = between(uniforms(key_B, 1)[0], *degrees)
    nothing_B = torch.zeros_like(angle_B)
    # torchvision's rotate turns against the sense of its affine.
    sources = affine_sources(
        -angle_B, nothing_B, nothing_B, nothing_B + 1, nothing_B, nothing_B, _offset(centre, x_BCHW)
    )
    return sample(x_BCHW, affine_grid(sources, x_BCHW), mode, fill)


def random_affine(
    x_BCHW: Tensor,
    key_B: Tensor,
    degrees: Range,
    translate: Sequence[float] | None,
    scale: Range | None,
    shear: Range | None,
    mode: str,
    centre: Sequence[float] | None,
    fill: Fill,
) -> Tensor:
    u_NB = uniforms(key_B, 6)
    height, width = x_BCHW.shape[-2:]
    most_x, most_y = translate[0] * width if translate else 0.0, translate[1] * height if translate else 0.0
    shear_x, shear_y = (shear or (0.0, 0.0))[:2], (shear or ())[2:] or (0.0, 0.0)
    sources = affine_sources(
        between(u_NB[0], *degrees),
        between(u_NB[1], -most_x, most_x).round(),
        between(u_NB[2], -most_y, most_y).round(),
        between(u_NB[3], *(scale or (1.0, 1.0))),
        between(u_NB[4], *shear_x),
        between(u_NB[5], *shear_y),
        _offset(centre, x_BCHW),
    )
    return sample(x_BCHW, affine_grid(sources, x_BCHW), mode, fill)


def random_perspective(
    x_BCHW: Tensor, key_B: Tensor, distortion_scale: float, mode: str, fill: Fill
) -> Tensor:
    """Each corner goes inwards by up to `distortion_scale` of half the image."""
    height, width = x_BCHW.shape[-2:]
    words_8B = words(key_B, 8)
    across_4B = to_integer(words_8B[:4], int(distortion_scale * (width // 2)) + 1)
    down_4B = to_integer(words_8B[4:], int(distortion_scale * (height // 2)) + 1)
    # top left, top right, bottom right, bottom left
    x_4B = torch.stack([across_4B[0], width - 1 - across_4B[1], width - 1 - across_4B[2], across_4B[3]])
    y_4B = torch.stack([down_4B[0], down_4B[1], height - 1 - down_4B[2], height - 1 - down_4B[3]])
    grid = perspective_grid(perspective_sources(x_4B.T, y_4B.T, width, height), x_BCHW)
    return sample(x_BCHW, grid, mode, fill)


def affine_sources(
    angle_B: Tensor,
    shift_x_B: Tensor,
    shift_y_B: Tensor,
    scale_B: Tensor,
    shear_x_B: Tensor,
    shear_y_B: Tensor,
    centre: tuple[float, float],
) -> Tensor:
    """Where the pixel at (x, y) from the middle comes from: float64 [B, 6], x' = m0 x + m1 y + m2 and
    y' = m3 x + m4 y + m5. Angles in degrees.

    The inverse of T C R S K C^-1, with T the shift, C the centre, S the scale and R K the matrix
    [[a, b], [c, d]] of determinant 1 below.
    """
    turn, kx, ky = (angle * (pi / 180) for angle in (angle_B, shear_x_B, shear_y_B))
    a = (turn - ky).cos() / ky.cos()
    b = -(a * kx.tan() + turn.sin())
    c = (turn - ky).sin() / ky.cos()
    d = turn.cos() - c * kx.tan()
    m0, m1, m3, m4 = d / scale_B, -b / scale_B, -c / scale_B, a / scale_B
    x, y = shift_x_B + centre[0], shift_y_B + centre[1]
    return torch.stack([m0, m1, centre[0] - m0 * x - m1 * y, m3, m4, centre[1] - m3 * x - m4 * y], dim=1)


def affine_grid(sources_B6: Tensor, x_BCHW: Tensor) -> Tensor:
    """[B, H, W, 2] of (x, y), -1 and 1 at the outer edges of the image."""
    (height, width), dtype = x_BCHW.shape[-2:], _float_of(x_BCHW)
    m = [sources_B6[:, i].to(dtype).view(-1, 1, 1) for i in range(6)]
    x, y = _centres(width, -0.5 * width, x_BCHW, dtype), _centres(height, -0.5 * height, x_BCHW, dtype)
    x, y = x.view(1, 1, -1), y.view(1, -1, 1)
    half_w, half_h = 0.5 * width, 0.5 * height
    from_x = x * (m[0] / half_w) + y * (m[1] / half_w) + m[2] / half_w
    from_y = x * (m[3] / half_h) + y * (m[4] / half_h) + m[5] / half_h
    return torch.stack([from_x, from_y], dim=-1)


def perspective_sources(x_B4: Tensor, y_B4: Tensor, width: int, height: int) -> Tensor:
    """[B, 8] that bring the four corners given to those of the image: x' = (c0 x + c1 y + c2) / w and
    y' = (c3 x + c4 y + c5) / w, with w = c6 x + c7 y + 1."""
    device = x_B4.device
    x, y = x_B4.double(), y_B4.double()
    at_x = constants((0, width - 1, width - 1, 0), torch.float64, device).flatten()
    at_y = constants((0, 0, height - 1, height - 1), torch.float64, device).flatten()
    one, no = torch.ones_like(x), torch.zeros_like(x)
    of_x = torch.stack([x, y, one, no, no, no, -at_x * x, -at_x * y], dim=-1)
    of_y = torch.stack([no, no, no, x, y, one, -at_y * x, -at_y * y], dim=-1)
    to_B8 = torch.cat([at_x, at_y]).expand(len(x), 8)
    # Without the check, for which a GPU would have to wait.
    solution_B8: Tensor = torch.linalg.solve_ex(torch.cat([of_x, of_y], dim=1), to_B8.unsqueeze(-1))[0]
    return solution_B8.squeeze(-1)


def perspective_grid(sources_B8: Tensor, x_BCHW: Tensor) -> Tensor:
    (height, width), dtype = x_BCHW.shape[-2:], _float_of(x_BCHW)
    # Rounded once, as torchvision does.
    c = [sources_B8[:, i].to(torch.float32).to(dtype).view(-1, 1, 1) for i in range(8)]
    x = _centres(width, 0.0, x_BCHW, dtype).view(1, 1, -1)
    y = _centres(height, 0.0, x_BCHW, dtype).view(1, -1, 1)
    half_w, half_h = 0.5 * width, 0.5 * height
    w = x * c[6] + y * c[7] + 1
    from_x = (x * (c[0] / half_w) + y * (c[1] / half_w) + c[2] / half_w) / w - 1
    from_y = (x * (c[3] / half_h) + y * (c[4] / half_h) + c[5] / half_h) / w - 1
    return torch.stack([from_x, from_y], dim=-1)


def sample(x_BCHW: Tensor, grid_BHW2: Tensor, mode: str, fill: Fill) -> Tensor:
    """The pixels at the grid's places, with `fill` outside the image; `mode` is nearest or bilinear."""
    x = x_BCHW.to(grid_BHW2.dtype)
    is_plain = fill is None or (mode == "nearest" and fill == 0)
    if not is_plain:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    out = grid_sample(x, grid_BHW2, mode=mode, padding_mode="zeros", align_corners=False)
    if not is_plain and fill is not None:
        values = tuple(fill) if isinstance(fill, Sequence) else (fill,)
        fill_C11 = constants(values, out.dtype, out.device)
        out, inside = out[:, :-1], out[:, -1:]
        if mode == "nearest":
            out = torch.where(inside < 0.5, fill_C11, out)
        else:
            out = (out - fill_C11) * inside + fill_C11
    return out if x_BCHW.is_floating_point() else out.round().to(x_BCHW.dtype)


def _float_of(x_BCHW: Tensor) -> torch.dtype:
    return x_BCHW.dtype if x_BCHW.is_floating_point() else torch.float32


def _centres(count: int, start: float, x_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Of the pixels of a line that begins at `start`."""
    return torch.arange(count, device=x_BCHW.device).to(dtype) + (start + 0.5)


def _offset(centre: Sequence[float] | None, x_BCHW: Tensor) -> tuple[float, float]:
    """A centre in pixels, seen from the middle of the image."""
    height, width = x_BCHW.shape[-2:]
    return (0.0, 0.0) if centre is None else (centre[0] - 0.5 * width, centre[1] - 0.5 * height)
