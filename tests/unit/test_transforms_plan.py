"""The transforms of a job as the plan sees them: what is refused where, at what cost, and what comes back."""

import resource
import time
from typing import Any

import pytest
from msgspec import UNSET

from core.nets.images import MAX_TRANSFORMS, Images, resolve_images
from core.nets.plan import Source, check
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Transforms
from tests.manifests import images as manifest_of_images

LARGEST = 2**31 - 1
SHAPE = (3, 32, 32)

Component = dict[str, Any]


def peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def t(kind: str, **keywords: Any) -> Component:
    return {"type": kind, **keywords}


def resolve(
    train: list[Component],
    *,
    evaluate: list[Component] | None = None,
    shape: tuple[int, ...] = SHAPE,
    num_soft_classes: int | None = 10,
) -> tuple[Images | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    spec = Transforms(train=train, eval=UNSET if evaluate is None else evaluate)
    return resolve_images(spec, [(shape, 9)], errors, num_soft_classes), errors


def kinds(components: list[Component]) -> list[str]:
    return [component["type"] for component in components]


RESIZE, FLIP, GREY = t("Resize", size=[16, 16]), t("RandomHorizontalFlip"), t("Grayscale")
NORMALIZE = t("Normalize", mean=[0.5], std=[0.5])


def test_a_compose_comes_back_as_its_members_and_leaves_only_the_deterministic_in_eval() -> None:
    inner = t("Compose", transforms=[FLIP, GREY])
    images, errors = resolve([t("Compose", transforms=[RESIZE, inner, NORMALIZE])])
    assert not errors
    assert images is not None
    assert kinds(images.train) == ["Resize", "RandomHorizontalFlip", "Grayscale", "ToDtype", "Normalize"]
    assert kinds(images.eval) == ["Resize", "Grayscale", "ToDtype", "Normalize"]
    assert images.shape == (1, 16, 16)


@pytest.mark.parametrize("kind", ["RandomApply", "RandomChoice", "RandomOrder"])
def test_a_container_that_draws_is_random_as_a_whole(kind: str) -> None:
    train = [RESIZE, t(kind, transforms=[t("Identity"), t("RGB")])]
    images, errors = resolve(train)
    assert not errors
    assert images is not None
    assert kinds(images.train) == ["Resize", kind, "ToDtype"]
    assert kinds(images.eval) == ["Resize", "ToDtype"]
    _, (error,) = resolve(train, evaluate=train)
    assert (error.pointer, error.code) == ("/transforms/eval/1", "random_eval")


@pytest.mark.parametrize(
    "cast", [t("ToTensor"), t("ConvertImageDtype"), t("ToDtype", dtype="float32", scale=True)]
)
def test_a_list_that_makes_floats_itself_is_left_as_it_is(cast: Component) -> None:
    images, errors = resolve([FLIP, cast, NORMALIZE])
    assert not errors
    assert images is not None
    assert kinds(images.train) == ["RandomHorizontalFlip", cast["type"], "Normalize"]


def test_floats_come_before_a_container_that_holds_what_needs_them() -> None:
    images, _ = resolve([RESIZE, t("RandomApply", transforms=[t("GaussianNoise")])])
    assert images is not None
    assert kinds(images.train) == ["Resize", "ToDtype", "RandomApply"]


def test_a_random_crop_without_an_eval_says_what_to_add() -> None:
    _, (error,) = resolve([t("RandomResizedCrop", size=24)])
    assert error.pointer == "/transforms/eval"
    assert "RandomResizedCrop" in error.message
    assert '{"type": "Resize", "size": [24, 24]}' in error.message
    images, errors = resolve([t("RandomResizedCrop", size=24)], evaluate=[t("Resize", size=[24, 24])])
    assert not errors
    assert images is not None
    assert images.shape == (3, 24, 24)


@pytest.mark.parametrize(
    "kind",
    [
        t("RandomResize", min_size=20, max_size=40),
        t("RandomShortestSize", min_size=[20, 30]),
        t("ScaleJitter", target_size=[40, 40]),
        t("RandomZoomOut"),
        t("RandomApply", transforms=[t("CenterCrop", size=20)]),
        t("RandomChoice", transforms=[t("CenterCrop", size=20), t("Resize", size=[20, 30])]),
    ],
    ids=lambda component: component["type"],
)
def test_a_size_of_each_image_s_own_must_be_ended(kind: Component) -> None:
    _, (error,) = resolve([kind], evaluate=[RESIZE])
    assert error.pointer == "/transforms/train"
    assert "Resize" in error.message
    for end in (RESIZE, t("RandomCrop", size=16, pad_if_needed=True)):
        images, errors = resolve([kind, end], evaluate=[RESIZE])
        assert not errors
        assert images is not None
        assert images.shape == (3, 16, 16)


def test_a_crop_that_only_some_draws_can_give_is_refused() -> None:
    _, (error,) = resolve(
        [t("ScaleJitter", target_size=[40, 40]), t("RandomCrop", size=24)], evaluate=[RESIZE]
    )
    assert error.pointer == "/transforms/train/1"
    assert "larger than" in error.message


PHOTOS: list[tuple[tuple[int, ...], int]] = [((3, 40, 30), 7), ((3, 24, 64), 2), ((3, 33, 33), 1)]


def resolve_photos(
    train: list[Component], evaluate: list[Component] | None
) -> tuple[Images | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    spec = Transforms(train=train, eval=UNSET if evaluate is None else evaluate)
    return resolve_images(spec, PHOTOS, errors), errors


@pytest.mark.parametrize(
    "train",
    [
        [t("RandomResizedCrop", size=16)],
        [t("RandomCrop", size=16)],
        [t("RandomHorizontalFlip"), t("RandomResizedCrop", size=[16, 16]), NORMALIZE],
        [t("RandomResize", min_size=20, max_size=40), t("RandomCrop", size=16, pad_if_needed=True)],
        [NORMALIZE, t("Resize", size=[16, 16])],
        [t("Resize", size=20), t("RandomCrop", size=16)],
    ],
    ids=lambda train: "-".join(kinds(train)),
)
def test_photos_of_differing_sizes_may_be_cropped_at_random_where_eval_gives_them_one(
    train: list[Component],
) -> None:
    for evaluate in ([RESIZE], [t("Resize", size=18), t("CenterCrop", size=16)]):
        images, errors = resolve_photos(train, evaluate)
        assert not errors
        assert images is not None
        assert images.shape == (3, 16, 16)


def test_photos_of_differing_sizes_are_refused_where_either_list_leaves_them_so() -> None:
    crop = t("RandomResizedCrop", size=16)
    for train, evaluate, at in (
        ([crop], None, "train"),
        ([crop], [], "eval"),
        ([crop], [NORMALIZE, RESIZE], "eval"),
        ([FLIP], [RESIZE], "train"),
        ([t("RandomResize", min_size=20, max_size=40)], [RESIZE], "train"),
    ):
        _, (error,) = resolve_photos(train, evaluate)
        assert (error.pointer, error.code) == (f"/transforms/{at}", "image_sizes")
        assert "40 x 30 (7), 24 x 64 (2), 33 x 33 (1)" in error.message
        assert '{"type": "Resize", "size": [40, 30]}' in error.message


def test_a_crop_larger_than_the_smallest_photo_is_refused() -> None:
    _, (error,) = resolve_photos([t("RandomCrop", size=28)], [t("Resize", size=[28, 28])])
    assert error.pointer == "/transforms/train/0"
    assert "larger than" in error.message


BLUR = t("GaussianBlur", kernel_size=10**9 + 1)


@pytest.mark.parametrize(
    ("train", "pointer"),
    [
        ([t("Resize", size=LARGEST)], "/0"),
        ([t("Resize", size=LARGEST), t("Resize", size=8)], "/0"),
        ([t("Resize", size=40_000), t("Resize", size=8)], "/0"),
        ([t("CenterCrop", size=LARGEST)], "/0"),
        ([t("Pad", padding=10**9)], "/0"),
        ([t("Pad", padding=5000)], "/0"),
        ([t("RandomCrop", size=8, padding=10**9)], "/0/padding"),
        ([t("RandomCrop", size=LARGEST, pad_if_needed=True)], "/0"),
        ([t("RandomResizedCrop", size=LARGEST)], "/0"),
        ([t("RandomResizedCrop", size=8, ratio=[-1, 2])], "/0"),
        ([t("RandomResize", min_size=1, max_size=LARGEST), RESIZE], "/0"),
        ([t("RandomShortestSize", min_size=LARGEST), RESIZE], "/0"),
        ([t("ScaleJitter", target_size=[LARGEST, LARGEST]), RESIZE], "/0"),
        ([t("RandomZoomOut", side_range=[1, 1e6]), RESIZE], "/0"),
        ([t("RandomZoomOut", side_range=[1, 1e38]), RESIZE], "/0"),
        ([t("RandomZoomOut", side_range=[1]), RESIZE], "/0"),
        ([BLUR], "/0/kernel_size"),
        (
            [t("Compose", transforms=[t("RandomApply", transforms=[BLUR])])],
            "/0/transforms/0/transforms/0/kernel_size",
        ),
        ([t("ElasticTransform", sigma=1e30)], "/0/sigma"),
        ([t("RandAugment", num_magnitude_bins=LARGEST)], "/0/num_magnitude_bins"),
        ([t("RandAugment", num_ops=LARGEST)], "/0/num_ops"),
        ([t("RandAugment", magnitude=31)], "/0"),
        ([t("TrivialAugmentWide", num_magnitude_bins=LARGEST)], "/0/num_magnitude_bins"),
        ([t("AugMix", mixture_width=LARGEST)], "/0/mixture_width"),
        ([t("AugMix", chain_depth=LARGEST)], "/0/chain_depth"),
        ([t("AutoAugment", interpolation="lanczos")], "/0"),
        ([t("RandomPosterize", bits=9)], "/0"),
        ([t("RandomErasing", p=1.5)], "/0"),
        ([t("RandomErasing", value=[1.0, 2.0])], "/0"),
        ([t("ColorJitter", hue=2)], "/0"),
        ([t("JPEG", quality=0)], "/0"),
        ([t("ToTensor"), t("JPEG", quality=9)], "/1"),
        ([t("RandomChoice", transforms=[FLIP, GREY])], "/0"),
        ([t("RandomChoice", transforms=[FLIP], p=[1, 2])], "/0"),
        ([t("RandomChoice", transforms=[FLIP, FLIP], p=[-1, 2])], "/0"),
        ([t("RandomApply", transforms=[t("ToTensor")])], "/0"),
        ([t("RandomApply", transforms=[FLIP], p=7)], "/0"),
        ([t("RandomOrder", transforms=[FLIP, RESIZE])], "/0"),
        ([t("RandomApply", transforms=[])], "/0/transforms"),
        ([t("RandomApply", transforms=[FLIP, t("RandomRotate")])], "/0/transforms/1/type"),
        ([t("Lambda")], "/0/type"),
        ([t("FiveCrop", size=3)], "/0/type"),
        ([t("Compose", transforms=[FLIP] * MAX_TRANSFORMS)], ""),
        ([FLIP] * 5000, ""),
        ([t("MixUp"), GREY], "/0"),
        ([t("RandomApply", transforms=[t("MixUp"), FLIP])], "/0/transforms/0"),
        ([t("CutMix", alpha=-1)], "/0"),
        ([t("CutMix", num_classes=3)], "/0/num_classes"),
        ([t("MixUp", labels_getter="default")], "/0/labels_getter"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_run_or_would_cost_too_much_is_refused_at_its_part(
    train: list[Component], pointer: str
) -> None:
    before_bytes, began = peak_memory_bytes(), time.perf_counter()
    images, errors = resolve(train, evaluate=[RESIZE])
    assert images is None
    assert errors[0].pointer == f"/transforms/train{pointer}"
    assert time.perf_counter() - began < 1
    assert peak_memory_bytes() - before_bytes < 100 * 1024 * 1024


def test_what_mixes_needs_a_loss_that_takes_probabilities_and_gets_the_number_of_classes() -> None:
    choice = t("RandomChoice", transforms=[t("CutMix"), t("MixUp", num_classes=10)])
    images, errors = resolve([FLIP, choice])
    assert not errors
    assert images is not None
    assert kinds(images.train) == ["RandomHorizontalFlip", "ToDtype", "RandomChoice"]
    assert [c["num_classes"] for c in images.train[-1]["transforms"]] == [10, 10]
    assert kinds(images.eval) == ["ToDtype"]
    _, errors = resolve([choice], num_soft_classes=None)
    assert [error.pointer for error in errors] == [f"/transforms/train/0/transforms/{i}" for i in (0, 1)]
    assert "CrossEntropyLoss" in errors[0].message


def test_a_transform_is_followed_on_images_that_are_never_allocated() -> None:
    photo = (3, 60_000, 60_000)
    images, errors = resolve([RESIZE, t("AutoAugment"), t("RandomErasing")], shape=photo)
    assert not errors
    assert images is not None
    assert images.shape == (3, 16, 16)
    _, (error,) = resolve([FLIP, RESIZE], shape=photo)
    assert error.pointer == "/transforms/train/0"
    assert "Resize them before" in error.message


def test_a_job_that_mixes_is_planned_and_its_resolved_spec_plans_to_itself() -> None:
    spec = {
        "name": "mixed",
        "dataset": "d",
        "model": t("Sequential", layers=[t("Flatten"), t("Linear", out_features=10)]),
        "transforms": {"train": [t("RandAugment"), t("Compose", transforms=[t("ToTensor"), t("MixUp")])]},
    }
    source = Source("d@1", manifest_of_images())
    checked = check(spec, source)
    assert kinds(checked.plan.transforms.train) == ["RandAugment", "ToTensor", "MixUp"]
    assert checked.plan.transforms.train[-1]["num_classes"] == 10
    assert kinds(checked.plan.transforms.eval) == ["ToTensor"]
    assert check(checked.spec, source).plan.transforms == checked.plan.transforms
