"""Confident learning against its definition in plain Python, and losses of rows against those of torch."""

import numpy as np
import pytest
import torch
from torch import nn

from core.nets.modules.losses import OneHotTargets
from core.nets.wrong_labels import doubts, thresholds
from workers.suspects import by_row

# N rows, C classes


def test_a_threshold_is_the_mean_of_what_the_rows_of_a_class_have() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])

    assert thresholds(scores, torch.tensor([0, 0, 1])).tolist() == pytest.approx([0.7, 0.8])


def test_doubts_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random((200, 4)) ** 3
    scores = raw / raw.sum(axis=1, keepdims=True)
    labels = rng.integers(0, 4, 200)

    found = doubts(torch.from_numpy(scores), torch.from_numpy(labels))

    t = [scores[labels == j, j].mean() for j in range(4)]
    for row, given in enumerate(labels):
        p = scores[row]
        believed = [j for j in range(4) if p[j] >= t[j]]
        counted = max(believed, key=lambda j: p[j]) if believed else None
        is_likely = counted is not None and counted != given
        others = max(p[j] - t[j] for j in range(4) if j != given)
        assert bool(found.is_likely_N[row]) == is_likely
        assert found.score_N[row].item() == pytest.approx(p[given] - t[given] - others)
        assert found.predicted_N[row].item() == (counted if is_likely else p.argmax())


def test_a_class_that_no_row_bears_is_never_believed_in() -> None:
    scores = torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.9, 0.0]])

    found = doubts(scores, torch.tensor([0, 1]))

    assert found.is_likely_N.tolist() == [False, False]
    assert torch.isfinite(found.score_N).all()


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.MultiMarginLoss(),
    ],
    ids=str,
)
def test_the_loss_of_a_row_is_that_of_the_row_alone(loss: nn.Module) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    summed = nn.CrossEntropyLoss(weight=getattr(loss, "weight", None), reduction="sum")

    found = by_row(loss)(outputs, targets)

    for row in range(5):
        here = slice(row, row + 1)
        is_weighted = getattr(loss, "weight", None) is not None
        alone = (summed if is_weighted else loss)(outputs[here], targets[here])
        assert found[row].item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_row_of_several_values_has_their_mean() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 3), torch.rand(4, 3).round()

    found = by_row(nn.BCEWithLogitsLoss())(outputs, targets)

    each = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    assert found.tolist() == pytest.approx(each.mean(dim=1).tolist())


def test_one_hot_targets_are_seen_as_the_training_saw_them() -> None:
    outputs, targets = torch.eye(3)[:2], torch.tensor([0, 2])

    found = by_row(OneHotTargets(nn.MSELoss()))(outputs, targets)

    assert found.tolist() == pytest.approx([0.0, 2 / 3])


class Cubed(nn.Module):
    """A plugin's loss: it knows no reduction."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - targets) ** 3).mean()


def test_a_loss_without_reductions_is_asked_row_by_row() -> None:
    found = by_row(Cubed())(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]]))

    assert found.tolist() == [1.0, 8.0]
