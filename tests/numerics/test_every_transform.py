"""Every transform: the plan has the shape of the pixels, and they are torchvision's, drawn per sample. Those
that act on a whole batch draw otherwise: `test_augment_pixels.py` holds their pixels against the same."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from core.nets import registry
from core.nets.components.transforms import FACTS, FAMILY
from core.nets.images import Images, resolve_images
from core.nets.randomness import hash_words
from core.nets.transforms import Pipeline, is_random
from modelyard.specs.jobspec import Transforms
from tests.transforms import EXAMPLES, MIXING, RANDOM, RESIZED, SPREADING, Component, component, spec_of

SEED, EPOCH, ROWS = 11, 4, 6

#: Made for floats in 0..1: without a ToDtype of the spec's own, pixels are made so before these.
FLOAT = ("Normalize", "GaussianNoise", "RandomErasing")
#: They draw from torch's generator, seeded for each row.
PER_ROW = ("ElasticTransform", "AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix")
CASTS = ("ToDtype", "ConvertImageDtype", "ToTensor")


def images(channels: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(30, 220, (ROWS, channels, *size), dtype=torch.uint8, generator=generator)


def planned(
    train: list[Component], shape: tuple[int, ...], evaluate: list[Component] | None = None
) -> Images:
    errors: list[Any] = []
    spec = Transforms(train=train) if evaluate is None else Transforms(train=train, eval=evaluate)
    found = resolve_images(spec, [(shape, ROWS)], errors)
    assert not errors
    assert found is not None
    return found


def by_hand(name: str, x_CHW: Tensor, index: int) -> Tensor:
    """torchvision's class on one image, seeded as the design says; floats where a tutorial makes them."""
    to_float = v2.ToDtype(torch.float32, scale=True)
    if name in FLOAT:
        x_CHW = to_float(x_CHW)
    torch.manual_seed(hash_words(SEED, EPOCH, index, 0))
    x_CHW = EXAMPLES[name][1](x_CHW)
    if name in SPREADING:
        x_CHW = v2.Resize([15, 13])(x_CHW)
    return x_CHW if name in FLOAT + CASTS else to_float(x_CHW)


def test_the_examples_are_all_that_a_spec_may_name() -> None:
    assert sorted([*EXAMPLES, *MIXING]) == sorted(registry.names("transform"))


def test_every_class_of_torchvision_is_offered_or_left_out_with_a_reason() -> None:
    classes = {name for name, member in vars(v2).items() if isinstance(member, type)}
    assert classes <= {*FAMILY.types, *FAMILY.own, *FAMILY.absent}
    assert not set(FAMILY.absent) & {*FAMILY.types, *FAMILY.own}


def test_facts_are_of_transforms_that_are_offered() -> None:
    assert set(FACTS) <= set(registry.names("transform"))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)], ids=["colour", "grey"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_transform_makes_torchvision_s_pixels_in_the_shape_of_the_plan(
    name: str, shape: tuple[int, int, int]
) -> None:
    train, evaluate = spec_of(name)
    plan = planned(train, shape, evaluate)
    pipeline = Pipeline.from_spec(plan.train)
    x_BCHW, indices = images(shape[0], shape[1:]), [40, 3, 17, 8, 99, 0]
    stored = torch.stack([pipeline.apply_prefix(x) for x in x_BCHW])
    out = pipeline.apply_rest(stored, SEED, EPOCH, indices)
    expected = torch.stack([by_hand(name, x, i) for x, i in zip(x_BCHW, indices, strict=True)])
    assert tuple(out.shape[1:]) == plan.shape == tuple(expected.shape[1:])
    assert type(out) is Tensor
    if name == "Normalize":
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    elif not any(step.form for step in pipeline.rest):
        assert torch.equal(out, expected)


@pytest.mark.parametrize("name", [n for n in RANDOM if n not in ("JPEG", *SPREADING, *PER_ROW)])
def test_a_batch_on_another_device_is_never_waited_for(name: str) -> None:
    """The meta device has no values to wait for: what asks for one raises."""
    pipeline = _pipeline(name)
    x_BCHW = images(3, (32, 32)).to("meta")
    out = pipeline.apply_rest(x_BCHW, SEED, EPOCH, torch.arange(ROWS, device="meta"))
    assert out.is_meta
    assert out.shape == pipeline.apply_rest(images(3, (32, 32)), SEED, EPOCH, range(ROWS)).shape


def test_most_random_transforms_act_on_a_whole_batch() -> None:
    row_by_row = {name for name in RANDOM if _pipeline(name).needs_generator}
    assert row_by_row == {*SPREADING, *PER_ROW}


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_transform_draws_for_a_row_whatever_else_is_in_the_batch(name: str) -> None:
    pipeline = _pipeline(name)
    x_BCHW, indices = images(3, (32, 32)), torch.tensor([40, 3, 17, 8, 99, 0])
    torch.manual_seed(123)
    whole = pipeline.apply_rest(x_BCHW, SEED, EPOCH, indices)
    after = torch.rand(1)
    torch.manual_seed(456)
    backwards = pipeline.apply_rest(x_BCHW.flip(0), SEED, EPOCH, indices.flip(0)).flip(0)
    alone = torch.cat(
        [pipeline.apply_rest(x_BCHW[i : i + 1], SEED, EPOCH, indices[i : i + 1]) for i in range(ROWS)]
    )
    assert torch.equal(backwards, whole)
    assert torch.equal(alone, whole)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_transform_draws_anew_in_another_epoch(name: str) -> None:
    pipeline = _pipeline(name)
    assert pipeline.is_random
    x_BCHW = images(3, (32, 32))
    first, second = (pipeline.apply_rest(x_BCHW, SEED, epoch, range(ROWS)) for epoch in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", [name for name in RANDOM if name not in ("RandomCrop", "RandomResizedCrop")])
def test_an_eval_left_out_has_nothing_random(name: str) -> None:
    resized, inside = (
        {"type": "Resize", "size": [30, 30]},
        {"type": "Compose", "transforms": [component(name)]},
    )
    plan = planned([resized, inside, RESIZED], (3, 32, 32))
    kinds = [c["type"] for c in plan.eval if c["type"] != "ToDtype"]
    assert kinds == ["Resize", "Resize"]
    assert not any(map(is_random, plan.eval))


@pytest.mark.parametrize("name", SPREADING)
def test_sizes_that_are_drawn_lie_in_the_bounds_of_the_plan_and_reach_near_them(name: str) -> None:
    spread = FACTS[name].spread
    assert spread is not None
    errors: list[Any] = []
    checked = registry.check_component("transform", component(name), "", errors)
    assert checked is not None
    size = (29, 41)
    (low_h, low_w), (high_h, high_w) = spread(checked, size)
    torch.manual_seed(0)
    transform = EXAMPLES[name][1]
    drawn = [transform(torch.zeros(1, *size, dtype=torch.uint8)).shape[1:] for _ in range(400)]
    heights, widths = [shape[0] for shape in drawn], [shape[1] for shape in drawn]
    assert low_h <= min(heights) <= low_h + 1
    assert low_w <= min(widths) <= low_w + 1
    assert high_h - 1 <= max(heights) <= high_h
    assert high_w - 1 <= max(widths) <= high_w


@pytest.mark.parametrize(
    ("range_of", "fixed"),
    [
        ({"type": "GaussianBlur", "kernel_size": 3, "sigma": [0.5, 2.0]}, {"sigma": 1.5}),
        ({"type": "JPEG", "quality": [20, 80]}, {"quality": 40}),
    ],
)
def test_a_range_is_random_and_one_number_is_not(range_of: Component, fixed: Component) -> None:
    one = range_of | fixed
    plan = planned([range_of, one], (3, 32, 32))
    assert [c["type"] for c in plan.eval] == [one["type"], "ToDtype"]
    pipeline = Pipeline.from_spec(plan.eval)
    torch.manual_seed(1)
    before = torch.default_generator.get_state()
    out = pipeline.apply_rest(images(3, (32, 32)), 0, 0, range(ROWS))
    assert torch.equal(torch.default_generator.get_state(), before)
    by_hand = EXAMPLES[one["type"]][1]
    hand = v2.GaussianBlur(3, 1.5) if isinstance(by_hand, v2.GaussianBlur) else v2.JPEG(40)
    expected = torch.stack(
        [v2.functional.to_dtype(hand(x), torch.float32, scale=True) for x in images(3, (32, 32))]
    )
    torch.testing.assert_close(out, expected, rtol=0, atol=1.01 / 255)
    assert (out != expected).double().mean() < 0.01


def _pipeline(name: str) -> Pipeline:
    train, evaluate = spec_of(name)
    return Pipeline.from_spec(planned(train, (3, 32, 32), evaluate).train)
