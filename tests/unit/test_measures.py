"""Measures against scikit-learn, whatever the batches."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score
from torch import Tensor

from core.nets.measures import MEASURES
from core.nets.metrics import NAMES
from modelyard.specs.jobspec import Task

CPU = torch.device("cpu")
BATCH_SIZES = [1, 7, 64, 1000]


def measured(task: Task, outputs: Tensor, targets: Tensor, batch_size: int) -> dict[str, float]:
    measures = MEASURES[task](CPU)
    for start in range(0, len(outputs), batch_size):
        measures.add(outputs[start : start + batch_size], targets[start : start + batch_size])
    return measures.compute()


def regression(mean: float, columns: int = 1) -> tuple[Tensor, Tensor]:
    """Outputs and targets [257, columns] around a mean, as the float32 that a net gives."""
    random = torch.Generator().manual_seed(3)
    targets = mean + torch.randn(257, columns, generator=random)
    return targets + 0.3 * torch.randn(257, columns, generator=random), targets


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_accuracy_is_that_of_scikit_learn(batch_size: int) -> None:
    random = torch.Generator().manual_seed(1)
    outputs = torch.randn(257, 5, generator=random)
    targets = torch.randint(0, 5, (257,), generator=random)
    expected = accuracy_score(targets.numpy(), outputs.argmax(dim=1).numpy())
    assert measured("classification", outputs, targets, batch_size) == {"accuracy": expected}


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("mean", [0.0, 1e5], ids=["small mean", "large mean"])
def test_r2_and_mae_are_those_of_scikit_learn(mean: float, batch_size: int) -> None:
    outputs, targets = regression(mean)
    given = measured("regression", outputs, targets, batch_size)
    p, y = outputs.double().numpy(), targets.double().numpy()
    assert given["r2"] == pytest.approx(r2_score(y, p), rel=1e-9)
    assert given["mae"] == pytest.approx(mean_absolute_error(y, p), rel=1e-9)


def test_several_values_a_row_are_measured_as_one_long_column() -> None:
    outputs, targets = regression(10.0, columns=3)
    given = measured("regression", outputs, targets, 50)
    p, y = outputs.double().numpy().ravel(), targets.double().numpy().ravel()
    assert given["r2"] == pytest.approx(r2_score(y, p), rel=1e-9)
    assert given["mae"] == pytest.approx(mean_absolute_error(y, p), rel=1e-9)


def test_a_mean_in_place_of_the_net_has_an_r2_of_zero() -> None:
    _, targets = regression(1e6)
    outputs = targets.double().mean().expand(targets.shape)
    assert measured("regression", outputs, targets, 16)["r2"] == pytest.approx(0.0, abs=1e-9)


def test_targets_that_are_all_alike_have_no_r2_and_still_an_mae() -> None:
    given = measured("regression", torch.full((9, 1), 2.5), torch.full((9, 1), 2.0), 4)
    assert math.isnan(given["r2"])
    assert given["mae"] == 0.5


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_without_a_row_every_measure_of_the_task_is_nan(task: Task) -> None:
    values = MEASURES[task](CPU).compute()
    assert tuple(values) == NAMES[task]
    assert np.isnan(list(values.values())).all()
