"""Losses against torch's own functions, called as a script would, whatever the batches of an epoch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional as F

from core.nets import registry
from core.nets.build import build_loss
from core.nets.components.losses import FAMILY
from core.nets.objective import loss_sum_and_count, meet
from modelyard.specs import ProblemError

ROWS = 37
Case = tuple[dict[str, Any], Any, Tensor, Callable[[], Tensor]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(classes: int) -> Tensor:
    return torch.randint(0, classes, (ROWS,), generator=torch.Generator().manual_seed(7))


SCORES, CLASSES = draw(ROWS, 5), labels(5)
HOLDS = (draw(ROWS, 4, seed=1) > 0.3).float()
LABEL_SCORES = draw(ROWS, 4, seed=2)
VALUES, TRUTH = draw(ROWS, 3, seed=3), draw(ROWS, 3, seed=4)
FIRST, SECOND, THIRD = (draw(ROWS, 6, seed=seed) for seed in (5, 6, 7))
ALIKE = torch.where(labels(2) > 0, 1.0, -1.0)
WEIGHTS = [0.2, 1.0, 3.0, 0.5, 2.0]
W = torch.tensor(WEIGHTS)


def label_lists(holds_BK: Tensor) -> Tensor:
    """The indices of the labels that hold, closed by -1, as a script would write them."""
    rows = [[k for k, holds in enumerate(row) if holds] for row in holds_BK.tolist()]
    return torch.tensor([row + [-1] * (holds_BK.shape[1] - len(row)) for row in rows])


def means_then_variances() -> Tensor:
    return torch.cat([VALUES, draw(ROWS, 3, seed=8)], dim=1)


CASES: dict[str, Case] = {
    "CrossEntropyLoss": ({}, SCORES, CLASSES, lambda: F.cross_entropy(SCORES, CLASSES)),
    "CrossEntropyLoss weighted": (
        {"class_weights": WEIGHTS, "label_smoothing": 0.1},
        SCORES,
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, weight=W, label_smoothing=0.1),
    ),
    "CrossEntropyLoss ignoring": (
        {"class_weights": WEIGHTS, "ignore_index": 2},
        SCORES,
        CLASSES,
        lambda: F.cross_entropy(SCORES, CLASSES, weight=W, ignore_index=2),
    ),
    "CrossEntropyLoss of mixed rows": (
        {"class_weights": WEIGHTS},
        SCORES,
        draw(ROWS, 5, seed=9).softmax(dim=1),
        lambda: F.cross_entropy(SCORES, draw(ROWS, 5, seed=9).softmax(dim=1), weight=W),
    ),
    "NLLLoss": (
        {"class_weights": WEIGHTS},
        SCORES.log_softmax(dim=1),
        CLASSES,
        lambda: F.nll_loss(SCORES.log_softmax(dim=1), CLASSES, weight=W),
    ),
    "NLLLoss ignoring": (
        {"ignore_index": 1},
        SCORES.log_softmax(dim=1),
        CLASSES,
        lambda: F.nll_loss(SCORES.log_softmax(dim=1), CLASSES, ignore_index=1),
    ),
    "MultiMarginLoss": (
        {"class_weights": WEIGHTS, "p": 2, "margin": 0.5},
        SCORES,
        CLASSES,
        lambda: F.multi_margin_loss(SCORES, CLASSES, p=2, margin=0.5, weight=W),
    ),
    "BCELoss": (
        {"class_weights": [1.0, 2.0, 3.0, 4.0]},
        LABEL_SCORES.sigmoid(),
        HOLDS,
        lambda: F.binary_cross_entropy(
            LABEL_SCORES.sigmoid(), HOLDS, weight=torch.tensor([1.0, 2.0, 3.0, 4.0])
        ),
    ),
    "BCEWithLogitsLoss": (
        {"pos_weight": [1.0, 2.0, 3.0, 4.0]},
        LABEL_SCORES,
        HOLDS,
        lambda: F.binary_cross_entropy_with_logits(
            LABEL_SCORES, HOLDS, pos_weight=torch.tensor([1.0, 2.0, 3.0, 4.0])
        ),
    ),
    "BCEWithLogitsLoss of two classes": (
        {},
        draw(ROWS, 1),
        labels(2),
        lambda: F.binary_cross_entropy_with_logits(draw(ROWS, 1)[:, 0], labels(2).float()),
    ),
    "SoftMarginLoss": (
        {},
        LABEL_SCORES,
        HOLDS,
        lambda: F.soft_margin_loss(LABEL_SCORES, torch.where(HOLDS > 0, 1.0, -1.0)),
    ),
    "MultiLabelMarginLoss": (
        {},
        LABEL_SCORES,
        HOLDS,
        lambda: F.multilabel_margin_loss(LABEL_SCORES, label_lists(HOLDS)),
    ),
    "MultiLabelSoftMarginLoss": (
        {"class_weights": [1.0, 2.0, 3.0, 4.0]},
        LABEL_SCORES,
        HOLDS,
        lambda: F.multilabel_soft_margin_loss(LABEL_SCORES, HOLDS, weight=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    ),
    "MSELoss": ({}, VALUES, TRUTH, lambda: F.mse_loss(VALUES, TRUTH)),
    "MSELoss of one value": (
        {},
        VALUES[:, :1],
        TRUTH[:, 0],
        lambda: F.mse_loss(VALUES[:, 0], TRUTH[:, 0]),
    ),
    "L1Loss": ({}, VALUES, TRUTH, lambda: F.l1_loss(VALUES, TRUTH)),
    "SmoothL1Loss": ({"beta": 0.5}, VALUES, TRUTH, lambda: F.smooth_l1_loss(VALUES, TRUTH, beta=0.5)),
    "HuberLoss": ({"delta": 0.5}, VALUES, TRUTH, lambda: F.huber_loss(VALUES, TRUTH, delta=0.5)),
    "KLDivLoss": (
        {},
        VALUES.log_softmax(dim=1),
        TRUTH.softmax(dim=1),
        lambda: F.kl_div(VALUES.log_softmax(dim=1), TRUTH.softmax(dim=1), reduction="batchmean"),
    ),
    "PoissonNLLLoss": (
        {"full": True},
        VALUES,
        TRUTH.abs().round(),
        lambda: F.poisson_nll_loss(VALUES, TRUTH.abs().round(), full=True),
    ),
    "GaussianNLLLoss": (
        {"full": True},
        means_then_variances(),
        TRUTH,
        # The density of the normal distribution, which is no code of torch's.
        lambda: torch.tensor(
            -norm.logpdf(TRUTH, VALUES, F.softplus(draw(ROWS, 3, seed=8)).sqrt()).mean(), dtype=torch.float32
        ),
    ),
    "HingeEmbeddingLoss": (
        {"margin": 0.7},
        VALUES[:, :1].abs(),
        ALIKE,
        lambda: F.hinge_embedding_loss(VALUES[:, 0].abs(), ALIKE, margin=0.7),
    ),
    "CosineEmbeddingLoss": (
        {"margin": 0.2},
        (FIRST, SECOND),
        ALIKE[:, None],
        lambda: F.cosine_embedding_loss(FIRST, SECOND, ALIKE, margin=0.2),
    ),
    "MarginRankingLoss": (
        {"margin": 0.3},
        (VALUES[:, :1], TRUTH[:, :1]),
        ALIKE,
        lambda: F.margin_ranking_loss(VALUES[:, 0], TRUTH[:, 0], ALIKE, margin=0.3),
    ),
    "TripletMarginLoss": (
        {"margin": 0.5, "p": 1.0, "swap": True},
        (FIRST, SECOND, THIRD),
        torch.zeros(ROWS, 0),
        lambda: F.triplet_margin_loss(FIRST, SECOND, THIRD, margin=0.5, p=1.0, swap=True),
    ),
}


def made(kind: str, keywords: dict[str, Any], *, is_one_hot: bool = False) -> nn.Module:
    errors: list[ProblemError] = []
    component = registry.check_component("loss", {"type": kind.split()[0]} | keywords, "/loss", errors)
    assert component is not None, errors
    return build_loss(component, is_one_hot=is_one_hot)


def part(outputs: Any, start: int, end: int) -> Any:
    return tuple(o[start:end] for o in outputs) if isinstance(outputs, tuple) else outputs[start:end]


def epoch_mean(loss: nn.Module, outputs: Any, targets: Tensor, batch_size: int) -> float:
    """As the trainer gathers it."""
    total, counted = torch.zeros(2, dtype=torch.float64)
    for start in range(0, ROWS, batch_size):
        some, wanted = part(outputs, start, start + batch_size), targets[start : start + batch_size]
        value = loss(some, meet(some, wanted))
        loss_sum, count = loss_sum_and_count(loss, value, wanted, len(wanted))
        total += loss_sum
        counted += count
    return (total / counted).item()


def test_every_loss_of_the_family_has_a_case() -> None:
    assert {case.split()[0] for case in CASES} == set(FAMILY.names)


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_that_of_a_script(case: str) -> None:
    keywords, outputs, targets, expected = CASES[case]
    given = made(case, keywords)(outputs, meet(outputs, targets))
    torch.testing.assert_close(given, expected(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 8, 36])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_an_epoch_is_that_of_all_rows_at_once_whatever_the_batches(
    case: str, batch_size: int
) -> None:
    keywords, outputs, targets, expected = CASES[case]
    given = epoch_mean(made(case, keywords), outputs, targets, batch_size)
    assert given == pytest.approx(expected().item(), rel=2e-6)


def test_a_loss_that_is_a_sum_is_told_as_its_mean_over_rows() -> None:
    loss = made("CrossEntropyLoss", {"reduction": "sum", "class_weights": WEIGHTS})
    expected = F.cross_entropy(SCORES, CLASSES, weight=W, reduction="sum").item() / ROWS
    assert epoch_mean(loss, SCORES, CLASSES, 10) == pytest.approx(expected, rel=1e-6)


def test_a_batch_of_ignored_rows_adds_nothing_to_the_mean() -> None:
    loss = made("CrossEntropyLoss", {"ignore_index": 3})
    value = loss(SCORES[:4], torch.full((4,), 3))
    assert math.isnan(value.item())
    loss_sum, count = loss_sum_and_count(loss, value, torch.full((4,), 3), 4)
    assert (loss_sum.item(), float(count)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("MSELoss", lambda hot: F.mse_loss(SCORES, hot)),
        ("CrossEntropyLoss", lambda hot: F.cross_entropy(SCORES, hot)),
        ("KLDivLoss", lambda hot: F.kl_div(SCORES, hot, reduction="batchmean")),
        ("HuberLoss", lambda hot: F.huber_loss(SCORES, hot)),
    ],
)
def test_a_one_hot_target_is_ones_among_zeros(kind: str, expected: Callable[[Tensor], Tensor]) -> None:
    given = made(kind, {}, is_one_hot=True)(SCORES, CLASSES)
    torch.testing.assert_close(given, expected(F.one_hot(CLASSES, 5).float()))


def test_the_margins_of_labels_are_those_of_the_written_sum() -> None:
    scores, holds = LABEL_SCORES.tolist(), HOLDS.tolist()
    total = 0.0
    for row, yes in zip(scores, holds, strict=True):
        inside = [x for x, y in zip(row, yes, strict=True) if y]
        outside = [x for x, y in zip(row, yes, strict=True) if not y]
        total += sum(max(0.0, 1 - (a - b)) for a in inside for b in outside) / len(row)
    given = made("MultiLabelMarginLoss", {})(LABEL_SCORES, HOLDS).item()
    assert given == pytest.approx(total / ROWS, rel=1e-5)


def test_probabilities_are_compared_in_float32_under_autocast() -> None:
    loss, probabilities = made("BCELoss", {}), LABEL_SCORES.sigmoid()
    with torch.autocast("cpu", torch.bfloat16):
        given = loss(probabilities.bfloat16(), HOLDS)
    assert given.dtype == torch.float32
    assert given.item() == pytest.approx(F.binary_cross_entropy(probabilities, HOLDS).item(), rel=0.01)


def test_the_second_half_of_a_gaussian_output_learns_the_variance() -> None:
    """A net that is two numbers, over draws of N(2, 3): the likelihood is highest at the sample's own."""
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(2.0, 3.0, (4000, 1))).float()
    raw = nn.Parameter(torch.zeros(1, 2))
    loss, optimizer = made("GaussianNLLLoss", {}), torch.optim.LBFGS([raw], max_iter=200)

    def step() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(raw.expand(4000, 2), truth)
        value.backward()  # type: ignore[no-untyped-call] # torch leaves Tensor.backward untyped
        return value

    optimizer.step(step)
    mean, variance = raw[0, 0].item(), F.softplus(raw[0, 1]).item()
    assert mean == pytest.approx(truth.mean().item(), abs=1e-2)
    assert variance == pytest.approx(truth.var(correction=0).item(), rel=1e-2)
