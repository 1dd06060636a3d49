"""Pixels: what a pipeline makes equals torchvision applied by hand, row by row, whatever the batch."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from core.nets import registry, transforms
from core.nets.randomness import hash_words
from core.nets.transforms import Pipeline, resolve, without_random
from tests.transforms import component

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
ELASTIC = {"type": "ElasticTransform", "alpha": 40.0, "sigma": 1.0}
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


def test_what_has_no_batch_form_is_torchvision_s_seeded_by_hand() -> None:
    ours = pipeline(ELASTIC, {"type": "TrivialAugmentWide"})
    assert ours.needs_generator
    x_BCHW, indices = pixels(6), [40, 3, 17, 8, 99, 0]
    expected = []
    elastic, trivial = v2.ElasticTransform(40.0, 1.0), v2.TrivialAugmentWide()
    for x, index in zip(x_BCHW, indices, strict=True):
        torch.manual_seed(hash_words(SEED, EPOCH, index, 0))
        x = elastic(x)
        torch.manual_seed(hash_words(SEED, EPOCH, index, 1))
        expected.append(v2.functional.to_dtype(trivial(x), torch.float32, scale=True))
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


CROP = {"type": "RandomCrop", "size": [9, 8], "padding": 2, "pad_if_needed": True}
RESIZED_CROP = {"type": "RandomResizedCrop", "size": [9, 8]}


@pytest.mark.parametrize("first", [CROP, RESIZED_CROP])
def test_rows_of_differing_sizes_become_a_batch_and_each_is_what_it_is_alone(first: dict[str, Any]) -> None:
    ours = pipeline(first, FLIP, NORMALIZE)
    assert not ours.needs_generator
    rows = [pixels(1, height=10 + 3 * i, width=30 - 2 * i)[0] for i in range(8)]
    whole = ours.apply_rest(rows, SEED, EPOCH, torch.arange(8) * 5)
    assert whole.shape == (8, 3, 9, 8)
    for i, row in enumerate(rows):
        assert torch.equal(ours.apply_rest([row], SEED, EPOCH, [i * 5])[0], whole[i])
        assert torch.equal(ours.apply_rest(row[None], SEED, EPOCH, [i * 5])[0], whole[i])


def test_what_keeps_the_size_of_rows_of_differing_sizes_may_come_before_what_ends_that() -> None:
    ours = pipeline(FLIP, ROTATE, RESIZED_CROP)
    rows = [pixels(1, height=10 + 3 * i, width=30 - 2 * i)[0] for i in range(8)]
    whole = ours.apply_rest(rows, SEED, EPOCH, range(8))
    for i, row in enumerate(rows):
        assert torch.equal(ours.apply_rest(row[None], SEED, EPOCH, [i])[0], whole[i])


def test_a_large_batch_is_cut_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "ColorJitter",
        "RandomAffine",
        "GaussianNoise",
        "RandomErasing",
        "GaussianBlur",
        "RandomPerspective",
    )
    ours = pipeline(CROP, FLIP, *map(component, names), NORMALIZE)
    x_BCHW = pixels(50, height=23, width=17)
    whole = ours.apply_rest(x_BCHW, SEED, EPOCH, range(50))
    for size in (1, 3, 7, 49):
        monkeypatch.setattr(transforms, "_PIXELS_AT_ONCE", size * x_BCHW[0].numel())
        assert torch.equal(ours.apply_rest(x_BCHW, SEED, EPOCH, range(50)), whole)


def test_threads_may_share_a_pipeline_that_needs_no_generator() -> None:
    ours = pipeline(CROP, FLIP, ROTATE, component("ColorJitter"), NORMALIZE)
    assert not ours.needs_generator
    x_BCHW = pixels(40)
    expected = ours.apply_rest(x_BCHW, SEED, EPOCH, range(40))
    torch.manual_seed(123)
    before = torch.default_generator.get_state()
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(
            lambda i: ours.apply_rest(x_BCHW[i : i + 4], SEED, EPOCH, range(i, i + 4)), range(0, 40, 4)
        )
        assert torch.equal(torch.cat(list(parts)), expected)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_the_images_of_a_row_share_its_draws() -> None:
    ours = pipeline(CROP, FLIP, NORMALIZE)
    x_BCHW = pixels(8)
    once = ours.apply_rest(x_BCHW, SEED, EPOCH, range(8))
    twice = ours.apply_rest(x_BCHW.unsqueeze(1).expand(-1, 2, -1, -1, -1), SEED, EPOCH, range(8))
    assert torch.equal(twice, once.unsqueeze(1).expand(-1, 2, -1, -1, -1))


@pytest.mark.parametrize("cast", [{"dtype": "float32"}, {"dtype": "float32", "scale": True}])
def test_a_normalize_after_any_cast_is_torchvision_s(cast: dict[str, Any]) -> None:
    ours = pipeline({"type": "ToDtype", **cast}, NORMALIZE)
    by_hand = v2.Compose(
        [v2.ToDtype(torch.float32, cast.get("scale", False)), v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])]
    )
    x_BCHW = pixels(4)
    torch.testing.assert_close(ours.apply_rest(x_BCHW, 0, 0, range(4)), by_hand(x_BCHW), rtol=1e-6, atol=1e-6)


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
    ours = pipeline(FLIP, ROTATE, ELASTIC)
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    ours.apply_rest(pixels(3), SEED, EPOCH, range(3))
    assert torch.equal(torch.rand(3), expected)


def test_the_caller_s_random_state_is_as_before_where_a_transform_raises() -> None:
    ours = pipeline(ELASTIC | {"fill": [1.0, 2.0]})
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    with pytest.raises(RuntimeError, match="size of tensor"):
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
