"""Batch forms against torchvision's functions, image by image with the same parameters: exact where pixels
are moved or levels replaced, within one level of uint8 or 1e-5 of a float where they are computed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from core.nets.augment import affine, colour, crops, erasing, filters
from core.nets.augment.levels import normalize_levels
from core.nets.augment.table import form_of
from core.nets.randomness import hash_rows

ROWS = 24
KEYS = hash_rows(7, 3, torch.arange(ROWS) * 13, 0)
Pixels = Callable[[Tensor], Tensor]


def uint8(channels: int = 3, height: int = 31, width: int = 26, rows: int = ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, 250, (rows, channels, height, width), dtype=torch.uint8, generator=generator)


def floats(channels: int = 3, height: int = 31, width: int = 26) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(ROWS, channels, height, width, generator=generator)


def uniform(low: float, high: float) -> Tensor:
    return torch.rand(ROWS, generator=torch.Generator().manual_seed(2)).double() * (high - low) + low


def assert_near(out: Tensor, expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """One level of uint8, as a number that lies between two levels may be rounded either way."""
    wanted = torch.stack(expected)
    assert out.dtype == wanted.dtype
    difference = (out.double() - wanted.double()).abs()
    assert difference.max() <= (tolerance if out.is_floating_point() else 1)
    if not out.is_floating_point():
        assert (difference > 0).double().mean() < 0.01


def bilinear_image(height: int, width: int) -> Tensor:
    """Smooth, so that a place that is off by a rounding error is a pixel that is off by as little."""
    lines, columns = torch.linspace(0, 1, height).view(-1, 1), torch.linspace(0, 1, width)
    return (lines * 0.7 + columns * 0.3).expand(ROWS, 3, height, width).contiguous()


SOMETIMES: list[tuple[v2.Transform, Pixels]] = [
    (v2.RandomHorizontalFlip(0.3), F.horizontal_flip),
    (v2.RandomVerticalFlip(0.6), F.vertical_flip),
    (v2.RandomInvert(0.5), F.invert),
    (v2.RandomPosterize(3, 0.5), lambda x: F.posterize(x, 3)),
    (v2.RandomSolarize(0.4, 0.5), lambda x: F.solarize(x, 0.4)),
    (v2.RandomAutocontrast(0.5), F.autocontrast),
    (v2.RandomEqualize(0.5), F.equalize),
    (v2.RandomGrayscale(0.5), lambda x: F.rgb_to_grayscale(x, 3)),
]


@pytest.mark.parametrize("make", [uint8, floats])
@pytest.mark.parametrize(("transform", "function"), SOMETIMES, ids=[type(t).__name__ for t, _ in SOMETIMES])
def test_what_happens_with_a_probability_is_torchvision_s_or_nothing(
    transform: v2.Transform, function: Pixels, make: Callable[[], Tensor]
) -> None:
    form = form_of(transform)
    assert form is not None
    x_BCHW = make()
    out = form(x_BCHW, KEYS)
    changed = [torch.equal(row, function(x)) for row, x in zip(out, x_BCHW, strict=True)]
    kept = [torch.equal(row, x) for row, x in zip(out, x_BCHW, strict=True)]
    assert all(did != did_not for did, did_not in zip(changed, kept, strict=True))
    assert 0 < sum(changed) < ROWS


@pytest.mark.parametrize("make", [uint8, floats])
@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_sharpening_is_torchvision_s(factor: float, make: Callable[[], Tensor]) -> None:
    x_BCHW = make()
    expected = [F.adjust_sharpness(x, factor) for x in x_BCHW]
    # One level in the mean of the neighbours counts |1 - factor| times.
    if x_BCHW.dtype == torch.uint8:
        difference = (filters.sharpen(x_BCHW, factor).int() - torch.stack(expected).int()).abs()
        assert difference.max() <= max(1, abs(1 - factor))
        assert (difference > 0).double().mean() < 0.001
    else:
        assert_near(filters.sharpen(x_BCHW, factor), expected)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("make", [uint8, floats])
def test_a_crop_is_a_window_of_the_padded_image(mode: Any, make: Callable[[], Tensor]) -> None:
    transform = v2.RandomCrop((30, 27), padding=[2, 3, 1, 4], fill=0.5, padding_mode=mode)
    form = form_of(transform)
    assert form is not None
    x_BCHW = make()
    out = form(x_BCHW, KEYS)
    places = set()
    for row, x in zip(out, x_BCHW, strict=True):
        padded = F.pad(x, [2, 3, 1, 4], fill=0.5, padding_mode=mode)
        windows = padded.unfold(1, 30, 1).unfold(2, 27, 1).permute(1, 2, 0, 3, 4)
        (found,) = (windows == row).all(-1).all(-1).all(-1).nonzero().tolist()
        places.add(tuple(found))
    assert len(places) > ROWS / 2


def test_a_crop_with_a_colour_for_the_padding_and_with_padding_where_needed_is_torchvision_s() -> None:
    x_BCHW = uint8(height=20, width=40)
    transform = v2.RandomCrop((28, 40), pad_if_needed=True, fill=[9, 8, 7])
    form = form_of(transform)
    assert form is not None
    for row, x in zip(form(x_BCHW, KEYS), x_BCHW, strict=True):
        padded = F.pad(x, [0, 8, 0, 8], fill=[9, 8, 7])
        assert any(torch.equal(row, padded[:, top : top + 28]) for top in range(9))


def test_a_crop_larger_than_the_image_is_refused() -> None:
    form = form_of(v2.RandomCrop(40, padding=1))
    assert form is not None
    with pytest.raises(ValueError, match=r"windows of \[40, 40\]"):
        form(uint8(), KEYS)


BOXES = (
    torch.arange(ROWS) % 5,
    torch.arange(ROWS) % 7,
    3 + torch.arange(ROWS) % 23,
    20 - torch.arange(ROWS) % 19,
)


@pytest.mark.parametrize("size", [[12, 9], [40, 50], [7, 33]])
@pytest.mark.parametrize("make", [uint8, floats])
def test_resized_boxes_are_torchvision_s_either_way(size: list[int], make: Callable[[], Tensor]) -> None:
    x_BCHW = make()
    places = torch.stack(BOXES).T.tolist()
    expected = [F.resized_crop(x, *place, size) for x, place in zip(x_BCHW, places, strict=True)]
    rows = crops.resized_rows(list(x_BCHW), BOXES, size, InterpolationMode.BILINEAR, True)
    assert torch.equal(rows, torch.stack(expected))
    by_matrices = crops.resized_boxes(x_BCHW, BOXES, size)
    if x_BCHW.dtype == torch.uint8:
        # torchvision rounds twice on a CPU, to levels between its passes, and once on a GPU.
        assert (by_matrices.int() - rows.int()).abs().max() <= 1
    else:
        assert_near(by_matrices, expected)


@pytest.mark.parametrize("make", [uint8, floats])
@pytest.mark.parametrize("channels", [1, 3])
def test_erased_boxes_are_torchvision_s(channels: int, make: Callable[[int], Tensor]) -> None:
    x_BCHW = make(channels)
    value = torch.tensor([3.0, 1.0, 2.0][:channels]).view(-1, 1, 1)
    out = erasing.erase(x_BCHW, BOXES, value.to(x_BCHW.dtype))
    places = torch.stack(BOXES).T.tolist()
    assert torch.equal(
        out, torch.stack([F.erase(x, *place, v=value) for x, place in zip(x_BCHW, places, strict=True)])
    )


def test_erasing_with_noise_puts_normal_numbers_inside_one_box_of_each_chosen_row() -> None:
    form = form_of(v2.RandomErasing(p=0.5, scale=(0.2, 0.3), value="random"))
    assert form is not None
    x_BCHW = torch.full((ROWS, 3, 60, 60), 9.0)
    out = form(x_BCHW, KEYS)
    assert isinstance(out, Tensor)
    erased = out.ne(x_BCHW)
    boxes = erased.all(1)
    assert torch.equal(boxes, erased.any(1))
    lines, columns = boxes.any(2), boxes.any(1)
    assert torch.equal(boxes, lines.unsqueeze(2) & columns.unsqueeze(1))
    area = boxes.sum((1, 2))[boxes.any(2).any(1)].double() / 3600
    assert 0 < len(area) < ROWS
    assert area.min() > 0.18
    assert area.max() < 0.32
    noise = out[erased]
    assert abs(noise.mean()) < 5 / len(noise) ** 0.5
    assert abs(noise.var() - 1) < 5 * (2 / len(noise)) ** 0.5


CENTRES = [None, [4.0, 9.5]]


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("fill", [None, 0, [0.1, 0.2, 0.3]])
@pytest.mark.parametrize("mode", [InterpolationMode.NEAREST, InterpolationMode.BILINEAR])
@pytest.mark.parametrize("size", [(31, 26), (24, 24)])
def test_affine_pixels_are_torchvision_s(
    size: tuple[int, int], mode: InterpolationMode, fill: Any, centre: list[float] | None
) -> None:
    x_BCHW = bilinear_image(*size)
    angle, shift, scale, shear = (
        uniform(-170, 170),
        uniform(-6, 6).round(),
        uniform(0.6, 1.7),
        uniform(-30, 30),
    )
    offset = affine._offset(centre, x_BCHW)
    sources = affine.affine_sources(angle, shift, -shift, scale, shear, shear.flip(0), offset)
    out = affine.sample(x_BCHW, affine.affine_grid(sources, x_BCHW), mode.value, fill)
    expected = [
        F.affine(
            x_BCHW[i],
            angle[i].item(),
            [shift[i].item(), -shift[i].item()],
            scale[i].item(),
            [shear[i].item(), shear.flip(0)[i].item()],
            mode,
            fill,
            centre,
        )
        for i in range(ROWS)
    ]
    if mode is InterpolationMode.BILINEAR:
        assert_near(out, expected)
    else:
        # A place in the middle between two pixels may be rounded to either.
        assert ((out - torch.stack(expected)).abs() > 1e-5).double().mean() < 1e-3


@pytest.mark.parametrize("degrees", [(-40.0, 70.0), (90.0, 90.0), (0.0, 0.0), (180.0, 180.0)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_rotated_uint8_is_torchvision_s(
    degrees: tuple[float, float], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Tensor] = []
    sources = affine.affine_sources

    def record(angle_B: Tensor, *others: Any) -> Tensor:
        drawn.append(angle_B)
        return sources(angle_B, *others)

    monkeypatch.setattr(affine, "affine_sources", record)
    x_BCHW = (bilinear_image(24, 24) * 255).to(torch.uint8)
    out = affine.random_rotation(x_BCHW, KEYS, degrees, mode, None, 3)
    expected = [
        F.rotate(x, -angle, InterpolationMode(mode), fill=3)
        for x, angle in zip(x_BCHW, drawn[0].tolist(), strict=True)
    ]
    difference = (out.int() - torch.stack(expected).int()).abs()
    assert (difference > 0).double().mean() < 0.002
    if mode == "bilinear":
        assert difference.max() <= 1


@pytest.mark.parametrize("fill", [None, [0.1, 0.2, 0.3]])
def test_perspective_pixels_are_torchvision_s(fill: Any) -> None:
    height, width = 31, 26
    x_BCHW = bilinear_image(height, width)
    inwards = torch.randint(0, 8, (ROWS, 8), generator=torch.Generator().manual_seed(4))
    x_B4 = torch.tensor([0, width - 1, width - 1, 0]) + inwards[:, :4] * torch.tensor([1, -1, -1, 1])
    y_B4 = torch.tensor([0, 0, height - 1, height - 1]) + inwards[:, 4:] * torch.tensor([1, 1, -1, -1])
    sources = affine.perspective_sources(x_B4, y_B4, width, height)
    out = affine.sample(x_BCHW, affine.perspective_grid(sources, x_BCHW), "bilinear", fill)
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    ends = torch.stack([x_B4, y_B4], dim=-1).tolist()
    assert_near(out, [F.perspective(x, corners, end, fill=fill) for x, end in zip(x_BCHW, ends, strict=True)])


ADJUSTMENTS: list[tuple[Any, Any, float, float]] = [
    (colour.adjust_brightness, F.adjust_brightness, 0.0, 2.5),
    (colour.adjust_contrast, F.adjust_contrast, 0.0, 2.5),
    (colour.adjust_saturation, F.adjust_saturation, 0.0, 2.5),
    (colour.adjust_hue, F.adjust_hue, -0.5, 0.5),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [uint8, floats])
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"), ADJUSTMENTS, ids=["light", "contrast", "sat", "hue"]
)
def test_colours_are_torchvision_s(
    ours: Any, theirs: Any, low: float, high: float, make: Callable[[int], Tensor], channels: int
) -> None:
    x_BCHW, factor = make(channels), uniform(low, high).float()
    expected = [theirs(x, f) for x, f in zip(x_BCHW, factor.tolist(), strict=True)]
    assert_near(ours(x_BCHW, factor), expected)


def test_jitter_takes_each_row_s_own_order() -> None:
    x_BCHW = floats()
    factors = [(i, uniform(0.6, 1.4).float() - float(i == 3)) for i in range(4)]
    order_NB = torch.stack(
        [torch.randperm(4, generator=torch.Generator().manual_seed(i)) for i in range(ROWS)]
    ).T
    expected = []
    for i, x in enumerate(x_BCHW):
        for which in order_NB[:, i].tolist():
            x = ADJUSTMENTS[which][1](x, factors[which][1][i].item())
        expected.append(x)
    # Hues of nearly grey pixels amplify a rounding error.
    assert_near(colour.jitter(x_BCHW, order_NB, factors), expected, tolerance=1e-4)


@pytest.mark.parametrize("make", [uint8, floats])
@pytest.mark.parametrize("kernel", [(3, 7), (23, 23)])
def test_blurs_are_torchvision_s(kernel: tuple[int, int], make: Callable[[], Tensor]) -> None:
    x_BCHW, sigma = make(), uniform(0.1, 4.0)
    expected = [F.gaussian_blur(x, list(kernel), [s, s]) for x, s in zip(x_BCHW, sigma.tolist(), strict=True)]
    assert_near(filters.blur(x_BCHW, sigma, kernel), expected)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("make", [uint8, floats])
def test_noise_is_added_as_torchvision_adds_it(make: Callable[[], Tensor], clip: bool) -> None:
    x_BCHW = make()
    torch.manual_seed(5)
    expected = F.gaussian_noise(x_BCHW, 0.05, 0.2, clip)
    torch.manual_seed(5)
    normal = torch.randn_like(x_BCHW, dtype=torch.float32)
    out = filters.add_noise(x_BCHW, normal, 0.05, 0.2, clip)
    difference = (out.double() - expected.double()).abs()
    assert ((difference > 1e-6) & (difference != 255)).double().mean() < 1e-3
    assert (difference > 1e-6).double().mean() < 2e-3


def test_permuted_channels_are_the_same_channels_in_another_order() -> None:
    form = form_of(v2.RandomChannelPermutation())
    assert form is not None
    x_BCHW = uint8()
    out = form(x_BCHW, KEYS)
    orders = set()
    for row, x in zip(out, x_BCHW, strict=True):
        order = [next(c for c in range(3) if torch.equal(x[c], channel)) for channel in row]
        assert torch.equal(F.permute_channels(x, order), row)
        orders.add(tuple(order))
    assert len(orders) == 6


def test_coded_rows_are_torchvision_s_of_one_of_the_qualities() -> None:
    form = form_of(v2.JPEG((20, 24)))
    assert form is not None
    x_BCHW = uint8()
    qualities = set()
    for row, x in zip(form(x_BCHW, KEYS), x_BCHW, strict=True):
        qualities.add(next(q for q in range(20, 25) if torch.equal(F.jpeg(x, q), row)))
    assert qualities == {20, 21, 22, 23, 24}


@pytest.mark.parametrize(("mean", "std"), [([0.4], [0.3]), ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25])])
def test_normalized_levels_are_torchvision_s(mean: list[float], std: list[float]) -> None:
    x_BCHW = uint8()
    expected = F.normalize(F.to_dtype(x_BCHW, torch.float32, scale=True), mean, std)
    torch.testing.assert_close(normalize_levels(x_BCHW, mean, std), expected, rtol=0, atol=1e-6)


def test_containers_do_to_each_row_what_one_of_their_ways_does() -> None:
    x_BCHW = uint8(height=9, width=9)
    invert, flip = v2.RandomInvert(1.0), v2.RandomHorizontalFlip(1.0)
    cases: list[tuple[v2.Transform, list[Pixels]]] = [
        (v2.RandomApply([invert, flip], p=0.5), [lambda x: x, lambda x: flip(invert(x))]),
        (v2.RandomChoice([invert, flip, v2.Identity()]), [invert, flip, lambda x: x]),
        (
            v2.RandomOrder([v2.RandomPosterize(2, p=1.0), v2.RandomSolarize(100, p=1.0)]),
            [
                lambda x: F.posterize(F.solarize(x, 100), 2),
                lambda x: F.solarize(F.posterize(x, 2), 100),
            ],
        ),
    ]
    for container, ways in cases:
        form = form_of(container)
        assert form is not None
        out = form(x_BCHW, KEYS)
        taken = [
            next(i for i, way in enumerate(ways) if torch.equal(way(x), y))
            for x, y in zip(x_BCHW, out, strict=True)
        ]
        assert set(taken) == set(range(len(ways)))


def test_containers_of_what_has_no_form_or_changes_sizes_have_none() -> None:
    assert form_of(v2.RandomApply([v2.ElasticTransform()])) is None
    assert form_of(v2.RandomChoice([v2.RandomCrop(9), v2.Identity()])) is None
