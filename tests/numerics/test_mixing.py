"""MixUp and CutMix: torchvision's numbers, the papers' loss, and the same run after a resume."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from core.data.target_transforms import OneHot, TargetTransform
from core.data.targets import Targets
from core.nets.images import resolve_images
from core.nets.measures import MEASURES
from core.nets.mixing import Mixing, num_soft_classes
from core.nets.transforms import Pipeline, is_mixing
from modelyard.specs.jobspec import Task, Transforms
from workers import progress, trainer
from workers.batches import Batches
from workers.cursor import Cursor
from workers.limits import Limits
from workers.trainer import EpochEnded
from workers.training import Training

# B rows in the batch, C classes

CPU = torch.device("cpu")
ROWS, BATCH, CLASSES = 22, 6, 3

MIXUP = {"type": "MixUp", "alpha": 0.4}
CUTMIX = {"type": "CutMix"}
CHOICE = {"type": "RandomChoice", "transforms": [CUTMIX, MIXUP]}

MIXES: dict[str, tuple[dict[str, Any], Callable[[], v2.Transform]]] = {
    "MixUp": (MIXUP, lambda: v2.MixUp(alpha=0.4, num_classes=CLASSES)),
    "CutMix": (CUTMIX, lambda: v2.CutMix(num_classes=CLASSES)),
    "RandomChoice of both": (
        CHOICE,
        lambda: v2.RandomChoice([v2.CutMix(num_classes=CLASSES), v2.MixUp(alpha=0.4, num_classes=CLASSES)]),
    ),
}


def resolved(*train: dict[str, Any]) -> list[dict[str, Any]]:
    errors: list[Any] = []
    images = resolve_images(Transforms(train=list(train)), [((1, 8, 8), ROWS)], errors, CLASSES)
    assert not errors
    assert images is not None
    assert not any(map(is_mixing, images.eval))
    return images.train


def data() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (ROWS, 1, 8, 8), generator=random, dtype=torch.uint8)
    return pixels, torch.randint(0, CLASSES, (ROWS,), generator=random)


def mixing_of(*train: dict[str, Any]) -> Mixing:
    mixing = Mixing.from_spec(resolved(*train), CLASSES)
    assert mixing is not None
    return mixing


@pytest.mark.parametrize("name", MIXES)
def test_a_batch_is_mixed_as_torchvision_does_with_the_same_state_of_the_generator(name: str) -> None:
    raw, by_hand = MIXES[name]
    pixels, targets_B = data()
    x_BCHW = pixels / 255
    mixing, hand = mixing_of(raw), by_hand()
    for seed in range(4):
        torch.manual_seed(seed)
        mixed = mixing(x_BCHW, targets_B)
        torch.manual_seed(seed)
        expected = hand(x_BCHW, targets_B)
        assert torch.equal(mixed[0], expected[0])
        assert torch.equal(mixed[1], expected[1])
        assert mixed[1].shape == (ROWS, CLASSES)


def test_the_loss_of_a_mixed_batch_is_the_two_losses_mixed() -> None:
    """lambda L(f(x), y_i) + (1 - lambda) L(f(x), y_j): Zhang et al. 2017, "mixup: Beyond Empirical Risk
    Minimization", https://arxiv.org/abs/1710.09412, section 2."""
    pixels, targets_B = data()
    torch.manual_seed(2)
    _, mixed_BC = mixing_of(MIXUP)(pixels / 255, targets_B)
    other_B = targets_B.roll(1)
    differ = targets_B != other_B
    share = mixed_BC[differ].gather(1, targets_B[differ, None])[0, 0]
    logits_BC = torch.randn(ROWS, CLASSES)
    cross_entropy = nn.CrossEntropyLoss()
    expected = share * cross_entropy(logits_BC, targets_B) + (1 - share) * cross_entropy(logits_BC, other_B)
    torch.testing.assert_close(cross_entropy(logits_BC, mixed_BC), expected)


def targets_of(task: Task, *transforms: TargetTransform) -> Targets:
    classes = None if task == "regression" else ["a", "b", "c"]
    return Targets(task, "label", {"image": ["image"]}, classes, list(transforms))


def test_only_a_loss_that_takes_probabilities_leaves_labels_to_be_mixed() -> None:
    for loss in (None, {"type": "CrossEntropyLoss"}, {"type": "CrossEntropyLoss", "ignore_index": -100}):
        assert num_soft_classes(targets_of("classification"), loss) == 3
    for loss in ({"type": "NLLLoss"}, {"type": "CrossEntropyLoss", "ignore_index": 2}):
        assert num_soft_classes(targets_of("classification"), loss) is None
    assert num_soft_classes(targets_of("classification", OneHot()), {"type": "MSELoss"}) == 3
    assert num_soft_classes(targets_of("regression"), None) is None


def training() -> Training:
    pixels, targets_N = data()
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, CLASSES))
    train = resolved({"type": "RandomHorizontalFlip"}, CHOICE)
    every_row = torch.arange(ROWS)
    return Training(
        net=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        scheduler=None,
        interval="epoch",
        train=Batches(
            (pixels,),
            targets_N,
            every_row,
            Pipeline.from_spec(train),
            BATCH,
            9,
            CPU,
            shuffle=True,
            mixing=Mixing.from_spec(train, CLASSES),
        ),
        validation=Batches((pixels,), targets_N, every_row, Pipeline.from_spec(resolved()), 10, 0, CPU),
        measures=MEASURES["classification"],
        limits=Limits(3),
        device=CPU,
        autocast=None,
    )


def test_a_run_with_mixing_that_is_broken_and_resumed_equals_an_unbroken_one_to_the_bit() -> None:
    torch.manual_seed(31)
    whole, cursor = training(), Cursor()
    torch.manual_seed(31)
    metrics = [report.metrics for report in trainer.fit(whole, cursor) if isinstance(report, EpochEnded)]

    first, cursor = training(), Cursor()
    torch.manual_seed(31)
    for _ in trainer.fit(first, cursor):
        if cursor.step == 6:
            break
    kept = io.BytesIO()
    torch.save((first.net.state_dict(), progress.state_of(first, cursor)), kept)
    kept.seek(0)
    weights, state = torch.load(kept, weights_only=True)
    second = training()
    second.net.load_state_dict(weights)
    torch.manual_seed(77)
    cursor = progress.restore(second, state)
    resumed = [report.metrics for report in trainer.fit(second, cursor) if isinstance(report, EpochEnded)]

    assert resumed == metrics[1:]
    for mine, theirs in zip(second.net.parameters(), whole.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
