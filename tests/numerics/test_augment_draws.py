"""What batch forms draw has the distribution of what torchvision draws: both, some thousands of each."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from core.nets.augment import affine, chances, colour, draws, filters
from core.nets.augment.boxes import crop_boxes, erased_boxes
from core.nets.augment.table import form_of
from core.nets.randomness import hash_rows, hash_words

DRAWS = 4000
KEYS = hash_rows(5, 1, torch.arange(DRAWS), 2)


def assert_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Kolmogorov and Smirnov's test of two samples, refused at one in a million: D > 2.69 sqrt(2 / n)."""
    both = torch.cat([ours.double(), theirs.double()]).sort().values
    below = [
        (torch.searchsorted(x.double().sort().values, both, right=True) / len(x)) for x in (ours, theirs)
    ]
    assert (below[0] - below[1]).abs().max() < 2.69 * (2 / DRAWS) ** 0.5


def assert_uniform(values: Tensor, count: int) -> None:
    """Pearson's chi-square: its mean is count - 1 and its variance twice that; six deviations."""
    found = torch.bincount(values, minlength=count).double()
    assert len(found) == count
    expected = len(values) / count
    statistic = ((found - expected) ** 2 / expected).sum()
    assert statistic < count - 1 + 6 * (2 * (count - 1)) ** 0.5


def assert_orders_uniform(order_NB: Tensor) -> None:
    all_orders = list(permutations(range(len(order_NB))))
    assert_uniform(torch.tensor([all_orders.index(tuple(order)) for order in order_NB.T.tolist()]), 24)


def theirs(transform: v2.Transform, shape: tuple[int, ...], *names: str) -> list[Tensor]:
    torch.manual_seed(0)
    image = torch.zeros(shape)
    drawn = [transform.make_params([image]) for _ in range(DRAWS)]
    return [torch.tensor([params[name] for params in drawn]) for name in names]


def recorded(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, answer: Any) -> list[Any]:
    """The arguments with which a form calls one of its own functions."""
    calls: list[Any] = []

    def record(*arguments: Any) -> Any:
        calls.append(arguments)
        return answer

    monkeypatch.setattr(module, name, record)
    return calls


def test_words_are_the_hash_with_one_word_more() -> None:
    key = hash_rows(1, 2, torch.tensor([3]), 4)
    from_scalars = hash_words(1, 2, 3, 4)
    assert key.item() % 2**64 == from_scalars
    mixed = [draws.words(key, 3)[k].item() for k in range(3)]
    assert len({*mixed, draws.branch(key, 0).item(), key.item()}) == 5
    assert draws.words(key, 2).flatten().tolist() == mixed[:2]


def test_uniforms_and_integers_are_uniform() -> None:
    u_NB = draws.uniforms(KEYS, 5)
    assert u_NB.min() >= 0
    assert u_NB.max() < 1
    for u_B in u_NB:
        assert_uniform((u_B * 50).long(), 50)
    for below in (2, 3, 10, 37):
        assert_uniform(draws.to_integer(draws.words(KEYS, 1)[0], below), below)
    # Two numbers of one row know nothing of each other.
    assert_uniform((u_NB[0] * 10).long() * 10 + (u_NB[1] * 10).long(), 100)


def test_the_greatest_word_is_a_uniform_below_one_and_an_integer_below_its_bound() -> None:
    extremes = torch.tensor([-1, 0, 2**63 - 1, -(2**63)])
    assert draws.to_uniform(extremes).tolist() == [1 - 2**-24, 0, 0.5 - 2**-24, 0.5]
    assert draws.to_integer(extremes, 2**31 - 1).tolist() == [2**31 - 2, 0, 2**30 - 1, 2**30 - 1]


def test_orders_are_uniform() -> None:
    order_NB = draws.orders(draws.words(KEYS, 4))
    assert_orders_uniform(order_NB)


def test_normals_have_the_moments_of_a_normal_distribution() -> None:
    z = draws.normals(KEYS, 51).double()
    assert z.shape == (DRAWS, 51)
    n = z.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * (variance / n) ** 0.5
    # A pair has one radius; its members must not be correlated, nor their squares.
    for f in (lambda x: x, torch.square):
        pair = torch.stack([f(z[:, :25]).flatten(), f(z[:, 26:51]).flatten()])
        assert abs(torch.corrcoef(pair)[0, 1]) < 5 / pair.shape[1] ** 0.5


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_a_probability_is_kept(p: float) -> None:
    x = torch.zeros(DRAWS, 1, 1, 1)
    share = chances.sometimes(x, KEYS, lambda y: y + 1, p).double().mean()
    assert abs(share - p) <= 5 * (p * (1 - p) / DRAWS) ** 0.5


def test_one_of_several_is_taken_as_often_as_its_weight_says() -> None:
    ways = [v2.Normalize([-float(i)], [1.0]) for i in range(3)]
    form = form_of(v2.RandomChoice(ways, p=[3, 1, 4]))
    assert form is not None
    out = form(torch.zeros(DRAWS, 1, 1, 1), KEYS)
    assert isinstance(out, Tensor)
    for value, p in enumerate((3 / 8, 1 / 8, 4 / 8)):
        assert abs((out == value).double().mean() - p) < 5 * (p * (1 - p) / DRAWS) ** 0.5


@pytest.mark.parametrize("size", [(40, 60), (64, 64), (100, 9)])
def test_boxes_of_a_resized_crop_are_drawn_as_torchvision_draws_them(size: tuple[int, int]) -> None:
    transform = v2.RandomResizedCrop(8)
    height, width = (torch.full((DRAWS,), side) for side in size)
    ours = crop_boxes(height, width, KEYS, transform.scale, transform.ratio)
    for mine, other in zip(
        ours, theirs(transform, (1, *size), "top", "left", "height", "width"), strict=True
    ):
        assert_same_distribution(mine, other)


def test_a_crop_of_an_image_where_no_box_fits_is_its_middle_as_in_torchvision() -> None:
    for size in ((4, 200), (200, 4)):
        transform = v2.RandomResizedCrop(8, scale=(0.9, 1.0))
        height, width = (torch.full((DRAWS,), side) for side in size)
        box = [
            list(set(side.tolist())) for side in crop_boxes(height, width, KEYS, (0.9, 1.0), transform.ratio)
        ]
        params = transform.make_params([torch.zeros(1, *size)])
        assert box == [[params[name]] for name in ("top", "left", "height", "width")]


def test_boxes_to_erase_are_drawn_as_torchvision_draws_them() -> None:
    transform = v2.RandomErasing()
    ours = erased_boxes((40, 25), KEYS, transform.scale, transform.ratio)
    for mine, other in zip(ours, theirs(transform, (1, 40, 25), "i", "j", "h", "w"), strict=True):
        assert_same_distribution(mine, other)


def test_places_of_a_crop_are_uniform() -> None:
    places = torch.arange(12 * 15).view(1, 1, 12, 15).expand(DRAWS, 1, 12, 15)
    form = form_of(v2.RandomCrop((8, 11)))
    assert form is not None
    out = form(places.float(), KEYS)
    assert isinstance(out, Tensor)
    corner = out[:, 0, 0, 0].long()
    assert_uniform(corner // 15 * 5 + corner % 15, 25)


def test_affine_parameters_are_drawn_as_torchvision_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch, affine, "affine_sources", torch.zeros(DRAWS, 6).double())
    transform = v2.RandomAffine(
        (-10, 40), translate=(0.1, 0.3), scale=(0.5, 1.2), shear=[-5.0, 9.0, 1.0, 3.0]
    )
    form = form_of(transform)
    assert form is not None
    form(torch.zeros(DRAWS, 1, 3, 60), KEYS)
    ((angle, shift_x, shift_y, scale, shear_x, shear_y, centre),) = calls
    assert centre == (0.0, 0.0)
    params = theirs(transform, (1, 3, 60), "angle", "translate", "scale", "shear")
    assert_same_distribution(angle, params[0])
    assert_same_distribution(shift_x, params[1][:, 0])
    assert_same_distribution(shift_y, params[1][:, 1])
    assert_same_distribution(scale, params[2])
    assert_same_distribution(shear_x, params[3][:, 0])
    assert_same_distribution(shear_y, params[3][:, 1])


def test_corners_of_a_perspective_are_drawn_as_torchvision_draws_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = recorded(monkeypatch, affine, "perspective_sources", torch.zeros(DRAWS, 8).double())
    affine.random_perspective(torch.zeros(DRAWS, 1, 20, 30), KEYS, 0.6, "bilinear", None)
    ((x_B4, y_B4, width, height),) = calls
    assert (width, height) == (30, 20)
    # RandomPerspective.make_params: int(0.6 * 15) + 1 places across, int(0.6 * 10) + 1 down.
    for i, start in enumerate((0, 20, 20, 0)):
        assert_uniform(x_B4[:, i] - start, 10)
    for i, start in enumerate((0, 0, 13, 13)):
        assert_uniform(y_B4[:, i] - start, 7)


def test_jitter_is_drawn_as_torchvision_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch, colour, "jitter", None)
    transform = v2.ColorJitter(brightness=0.4, contrast=(0.5, 3.0), saturation=0.2, hue=(-0.1, 0.3))
    form = form_of(transform)
    assert form is not None
    form(torch.zeros(DRAWS, 3, 1, 1), KEYS)
    ((_, order_NB, factors),) = calls
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for (_, mine), other in zip(factors, theirs(transform, (3, 1, 1), *names), strict=True):
        assert_same_distribution(mine, other)
    assert_orders_uniform(order_NB)


def test_a_jitter_of_nothing_leaves_pixels_as_they_are() -> None:
    form = form_of(v2.ColorJitter())
    assert form is not None
    x = torch.rand(DRAWS, 3, 2, 2)
    assert torch.equal(torch.as_tensor(form(x, KEYS)), x)


def test_photometric_distortions_happen_as_often_and_as_much_as_torchvision_s() -> None:
    """Compared by what they make of one pixel, as the parameters are many."""
    transform = v2.RandomPhotometricDistort(p=0.6)
    form = form_of(transform)
    assert form is not None
    pixel = torch.tensor([0.5, 0.2, 0.3]).view(1, 3, 1, 1)
    image = torch.cat([pixel, pixel.flip(1)], dim=3)
    ours = form(image.expand(DRAWS, 3, 1, 2), KEYS)
    assert isinstance(ours, Tensor)
    torch.manual_seed(0)
    other = torch.stack([transform(image[0]) for _ in range(DRAWS)])
    for channel in range(3):
        for column in range(2):
            # Where nothing is done both are the same number, but for a rounding error of the hue.
            assert_same_distribution(
                (ours[:, channel, 0, column] * 1e4).round(), (other[:, channel, 0, column] * 1e4).round()
            )


def test_sigmas_of_a_blur_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch, filters, "blur", None)
    form = form_of(v2.GaussianBlur(3, (0.5, 2.5)))
    assert form is not None
    form(torch.zeros(DRAWS, 1, 4, 4), KEYS)
    assert_uniform(((calls[0][1] - 0.5) * 20).long(), 40)
