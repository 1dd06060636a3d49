"""Pixels: what a pipeline makes equals torchvision applied by hand, row by row, whatever the batch."""

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from core.nets import registry
from core.nets.randomness import hash_words
from core.nets.transforms import Pipeline, resolve, without_random

SEED, EPOCH = 11, 4


def pipeline(*components: dict[str, Any]) -> Pipeline:
    errors: list[Any] = []
    checked = [registry.check_component("transform", component, "", errors) for component in components]
    assert not errors
    return Pipeline.from_spec(resolve([component for component in checked if component is not None]))


def pixels(rows: int, channels: int = 3, height: int = 12, width: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, channels, height, width), dtype=torch.uint8, generator=generator)


RESIZE = {"type": "Resize", "size": [9, 8]}
GREY = {"type": "Grayscale"}
FLIP = {"type": "RandomHorizontalFlip", "p": 0.5}
ROTATE = {"type": "RandomRotation", "degrees": 30, "interpolation": "bilinear"}
NORMALIZE = {"type": "Normalize", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def test_deterministic_transforms_equal_torchvision_s_compose() -> None:
    ours = pipeline(RESIZE, NORMALIZE)
    by_hand = v2.Compose(
        [
            v2.Resize([9, 8]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
        ]
    )
    x_BCHW = pixels(4)
    cached = torch.stack([ours.apply_prefix(x) for x in x_BCHW])
    assert cached.dtype == torch.uint8
    out = ours.apply_rest(cached, SEED, EPOCH, range(4))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.stack([by_hand(x) for x in x_BCHW]), rtol=0, atol=1e-6)


def test_the_pixels_of_a_random_pipeline_equal_torchvision_seeded_by_hand() -> None:
    ours = pipeline(FLIP, ROTATE)
    x_BCHW, indices = pixels(6), [40, 3, 17, 8, 99, 0]
    expected = []
    flip, rotate = v2.RandomHorizontalFlip(0.5), v2.RandomRotation(30, v2.InterpolationMode.BILINEAR)
    for x, index in zip(x_BCHW, indices, strict=True):
        torch.manual_seed(hash_words(SEED, EPOCH, index, 0))
        x = flip(x)
        torch.manual_seed(hash_words(SEED, EPOCH, index, 1))
        expected.append(v2.functional.to_dtype(rotate(x), torch.float32, scale=True))
    assert torch.equal(ours.apply_rest(x_BCHW, SEED, EPOCH, indices), torch.stack(expected))


def test_a_row_s_pixels_do_not_depend_on_who_else_is_in_the_batch() -> None:
    ours = pipeline(FLIP, ROTATE, NORMALIZE)
    x_BCHW = pixels(8)
    indices = torch.arange(8) * 5
    whole = ours.apply_rest(x_BCHW, SEED, EPOCH, indices)
    for i in range(8):
        alone = ours.apply_rest(x_BCHW[i : i + 1], SEED, EPOCH, indices[i : i + 1])
        assert torch.equal(alone[0], whole[i])
    reverse = ours.apply_rest(x_BCHW.flip(0), SEED, EPOCH, indices.flip(0))
    assert torch.equal(reverse.flip(0), whole)


def test_another_epoch_or_seed_draws_other_pixels() -> None:
    ours = pipeline(ROTATE)
    x_BCHW = pixels(4)
    first = ours.apply_rest(x_BCHW, SEED, EPOCH, range(4))
    assert not torch.equal(first, ours.apply_rest(x_BCHW, SEED, EPOCH + 1, range(4)))
    assert not torch.equal(first, ours.apply_rest(x_BCHW, SEED + 1, EPOCH, range(4)))


def test_half_of_the_rows_flip() -> None:
    x_BCHW = torch.arange(2, dtype=torch.uint8).expand(2000, 1, 1, 2)
    out = pipeline(FLIP).apply_rest(x_BCHW, SEED, EPOCH, range(2000))
    flipped = int((out[:, 0, 0, 0] > 0).sum())
    # five standard deviations of a fair coin
    assert abs(flipped - 1000) < 5 * (2000 * 0.25) ** 0.5


def test_the_caller_s_random_state_is_as_before() -> None:
    ours = pipeline(FLIP, ROTATE)
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    ours.apply_rest(pixels(3), SEED, EPOCH, range(3))
    assert torch.equal(torch.rand(3), expected)


def test_the_caller_s_random_state_is_as_before_where_a_transform_raises() -> None:
    ours = pipeline({"type": "RandomRotation", "degrees": 5, "fill": [1.0, 2.0]})
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    with pytest.raises(ValueError, match="fill"):
        ours.apply_rest(pixels(3), SEED, EPOCH, range(3))
    assert torch.equal(torch.rand(3), expected)


def test_float_comes_before_the_first_transform_that_needs_it_else_at_the_end() -> None:
    assert [c["type"] for c in resolve([RESIZE, FLIP])] == ["Resize", "RandomHorizontalFlip", "ToDtype"]
    assert [c["type"] for c in resolve([FLIP, NORMALIZE, GREY])] == [
        "RandomHorizontalFlip",
        "ToDtype",
        "Normalize",
        "Grayscale",
    ]
    own = {"type": "ToDtype", "dtype": "float32", "scale": False}
    assert resolve([own, FLIP]) == [own, FLIP]
    assert resolve([]) == [{"type": "ToDtype", "dtype": "float32", "scale": True}]


def test_a_pipeline_without_its_random_transforms_is_deterministic() -> None:
    assert without_random([RESIZE, FLIP, ROTATE, GREY]) == [RESIZE, GREY]
    assert pipeline(RESIZE, FLIP).is_random
    assert not pipeline(RESIZE, GREY).is_random


def test_the_prefix_ends_where_randomness_or_float_begins() -> None:
    assert [step.component["type"] for step in pipeline(RESIZE, GREY, FLIP, RESIZE).prefix] == [
        "Resize",
        "Grayscale",
    ]
    assert [step.component["type"] for step in pipeline(NORMALIZE, RESIZE).prefix] == []


def test_equal_prefixes_have_equal_keys_and_others_do_not() -> None:
    assert pipeline(RESIZE, FLIP).prefix_key() == pipeline(RESIZE, NORMALIZE).prefix_key()
    other = {"type": "Resize", "size": [9, 9]}
    assert pipeline(RESIZE).prefix_key() != pipeline(other).prefix_key()
    assert pipeline().prefix_key() != pipeline(RESIZE).prefix_key()


def test_the_shape_of_a_prefix_is_known_without_its_pixels() -> None:
    ours = pipeline(
        {"type": "Resize", "size": 9}, {"type": "Pad", "padding": 3, "padding_mode": "reflect"}, GREY
    )
    assert ours.prefix_shape((3, 12, 10)) == ours.apply_prefix(pixels(1)[0]).shape
    # a terabyte, were it made
    assert ours.prefix_shape((3, 1, 2**31)) == (1, 15, 9 * 2**31 + 6)
    narrow = pipeline({"type": "Pad", "padding": 5, "padding_mode": "reflect"})
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        narrow.prefix_shape((3, 4, 4))
