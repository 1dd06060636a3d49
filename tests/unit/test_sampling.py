"""The order in which an epoch goes through the training rows."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.utils.data import RandomSampler

from core.data.manifest import ColumnStats, Manifest
from core.data.targets import Targets
from core.errors import Invalid
from core.nets.components.samplers import FAMILY
from core.nets.randomness import permutation
from core.nets.sampling import balanced_weights, check_sampler, order_of, repetitions, rows_per_epoch
from modelyard.specs import Feature, ProblemError
from tests import manifests

CLASSIFIER = Targets("classification", "label", {"image": ["image"]}, manifests.DIGITS)
REGRESSION = Targets("regression", "label", {"image": ["image"]}, None)


def weighted(**fields: Any) -> dict[str, Any]:
    return {
        "type": "WeightedRandomSampler",
        "weights": "weight",
        "num_samples": None,
        "replacement": True,
    } | fields


def drawn(sampler: dict[str, Any], weights: list[float], epochs: int = 1, seed: int = 5) -> Tensor:
    """Places of so many epochs, one row an epoch."""
    order = order_of(sampler, True, seed, len(weights), torch.tensor(weights))
    return torch.stack([order.places(epoch) for epoch in range(epochs)])


def manifest(**stats: Any) -> Manifest:
    """100 training rows with a weight each."""
    found = manifests.images(splits={"train": 100})
    found.features["weight"] = Feature("float64", [])
    found.columns["weight"] = ColumnStats(**({"count": 100, "min": 0.5, "max": 2.0} | stats))
    return found


def checked(
    sampler: dict[str, Any], found: Manifest | None = None, targets: Targets = CLASSIFIER, rows: int = 90
) -> tuple[dict[str, Any] | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    return check_sampler(sampler, rows, targets, found or manifest(), errors), errors


SAMPLERS = [
    {"type": "SequentialSampler"},
    {"type": "RandomSampler"},
    {"type": "RandomSampler", "num_samples": 30},
    {"type": "RandomSampler", "num_samples": 250},
    {"type": "RandomSampler", "replacement": True, "num_samples": 120},
    {"type": "WeightedRandomSampler", "weights": "balanced"},
    {"type": "WeightedRandomSampler", "weights": "weight", "num_samples": 200},
    {"type": "WeightedRandomSampler", "weights": "weight", "num_samples": 50, "replacement": False},
    {"type": "SubsetRandomSampler", "indices": [3, 1, 4, 1, 59]},
]


@pytest.mark.parametrize("raw", SAMPLERS)
def test_an_order_is_a_function_of_seed_and_epoch_and_its_length_is_known_before(
    raw: dict[str, Any],
) -> None:
    sampler, errors = checked(raw)
    assert errors == []
    weights = torch.arange(90).double() + 1
    order = order_of(sampler, True, 7, 90, weights)
    first = order.places(3)
    torch.manual_seed(1)
    assert torch.equal(order_of(sampler, False, 7, 90, weights).places(3), first)
    assert len(first) == order.count == rows_per_epoch(sampler, 90)
    assert set(first.tolist()) <= set(range(90))
    assert first.dtype == torch.int64
    assert order.may_repeat or len(first.unique()) == len(first)
    if raw["type"] != "SequentialSampler":
        assert not torch.equal(order.places(4), first)
        assert not torch.equal(order_of(sampler, True, 8, 90, weights).places(3), first)


def test_random_sampler_goes_through_all_rows_in_the_order_of_shuffle() -> None:
    sampler, _ = checked({"type": "RandomSampler"})
    expected = permutation(7, 2, 90)
    assert torch.equal(order_of(sampler, False, 7, 90).places(2), expected)
    assert torch.equal(order_of(None, True, 7, 90).places(2), expected)
    assert torch.equal(order_of(None, False, 7, 90).places(2), torch.arange(90))


@given(st.integers(1, 40), st.integers(1, 130))
def test_random_sampler_draws_each_row_as_often_as_torchs_own(rows: int, count: int) -> None:
    sampler, _ = checked({"type": "RandomSampler", "num_samples": count}, rows=rows)
    ours = order_of(sampler, True, 3, rows).places(0).tolist()
    theirs = list(RandomSampler(range(rows), num_samples=count))
    assert sorted(Counter(ours).values()) == sorted(Counter(theirs).values())


def test_later_rounds_of_a_long_epoch_have_orders_of_their_own() -> None:
    sampler, _ = checked({"type": "RandomSampler", "num_samples": 180})
    first, second = order_of(sampler, True, 3, 90).places(0).chunk(2)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(90))
    assert not torch.equal(first, second)


def test_with_replacement_rows_are_drawn_uniformly() -> None:
    sampler, _ = checked({"type": "RandomSampler", "replacement": True, "num_samples": 50_000})
    counts = torch.bincount(order_of(sampler, True, 3, 90).places(0), minlength=90)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_weighted_rows_are_drawn_in_proportion_with_replacement() -> None:
    weights = [0.0, 1.0, 2.0, 3.0, 0.0, 4.0, 0.0]
    counts = torch.bincount(drawn(weighted(num_samples=50_000), weights)[0], minlength=7)
    assert counts[[0, 4, 6]].tolist() == [0, 0, 0]
    expected = 50_000 * np.array([0.1, 0.2, 0.3, 0.4])
    assert stats.chisquare(counts[[1, 2, 3, 5]].numpy(), expected).pvalue > 1e-3


def test_weighted_rows_without_replacement_are_drawn_one_after_another() -> None:
    # Weights 1, 2, 3: the pair (i, j) has the probability w_i / 6 * w_j / (6 - w_i).
    places = drawn(weighted(num_samples=2, replacement=False), [1.0, 2.0, 3.0], epochs=20_000)
    pairs = Counter(map(tuple, places.tolist()))
    weight = {0: 1.0, 1: 2.0, 2: 3.0}
    expected = {
        (i, j): 20_000 * weight[i] / 6 * weight[j] / (6 - weight[i]) for i in weight for j in weight if i != j
    }
    found = stats.chisquare([pairs[pair] for pair in expected], list(expected.values()))
    assert found.pvalue > 1e-3


def test_balanced_weights_give_every_class_the_same_share() -> None:
    labels_N = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    weights = balanced_weights(labels_N)
    assert weights[labels_N == 2].sum().item() == pytest.approx(1.0)
    order = order_of(weighted(weights="balanced", num_samples=30_000), True, 1, 1000, weights)
    counts = torch.bincount(labels_N[order.places(0)])
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_subset_is_gone_through_once_in_another_order_each_epoch() -> None:
    sampler, _ = checked({"type": "SubsetRandomSampler", "indices": [5, 9, 70, 33, 2]})
    order = order_of(sampler, True, 1, 90)
    assert [sorted(order.places(epoch).tolist()) for epoch in range(3)] == [[2, 5, 9, 33, 70]] * 3
    assert len({tuple(order.places(epoch).tolist()) for epoch in range(20)}) > 10


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_repetitions_count_earlier_draws_of_the_same_row(places: list[int]) -> None:
    expected = [places[:at].count(place) for at, place in enumerate(places)]
    assert repetitions(torch.tensor(places)).tolist() == expected


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, float("nan")], [0.0, 0.0]])
def test_weights_that_cannot_be_drawn_from_end_the_job_with_a_plain_message(weights: list[float]) -> None:
    with pytest.raises(Invalid, match="mend the column"):
        order_of(weighted(), True, 0, 2, torch.tensor(weights))


@pytest.mark.parametrize(
    ("sampler", "found", "pointer", "code"),
    [
        ({"type": "RandomSampeler"}, None, "/type", "unknown_type"),
        ({"type": "BatchSampler"}, None, "/type", "unknown_type"),
        ({"type": "RandomSampler", "generator": 1}, None, "/generator", "unknown_keyword"),
        ({"type": "RandomSampler", "num_samples": 0}, None, "/num_samples", "invalid_value"),
        ({"type": "RandomSampler", "num_samples": 2_000_000_000}, None, "/num_samples", "too_large"),
        (
            {
                "type": "WeightedRandomSampler",
                "weights": "balanced",
                "replacement": False,
                "num_samples": 91,
            },
            None,
            "/num_samples",
            "too_large",
        ),
        ({"type": "WeightedRandomSampler", "weights": "wieght"}, None, "/weights", "unknown_column"),
        ({"type": "WeightedRandomSampler", "weights": "image"}, None, "/weights", "wrong_kind"),
        (weighted(), manifest(missing=2), "/weights", "missing_values"),
        (weighted(), manifest(min=-0.5), "/weights", "out_of_range"),
        (weighted(), manifest(min=0.0, values=[(0.0, 95), (1.0, 5)]), "/weights", "out_of_range"),
        (weighted(replacement=False), manifest(min=0.0), "/weights", "out_of_range"),
        ({"type": "SubsetRandomSampler", "indices": [0, 90]}, None, "/indices/1", "out_of_range"),
        ({"type": "SubsetRandomSampler", "indices": []}, None, "/indices", "invalid_value"),
    ],
)
def test_a_sampler_that_cannot_run_is_refused(
    sampler: dict[str, Any], found: Manifest | None, pointer: str, code: str
) -> None:
    component, (error,) = checked(sampler, found)
    assert component is None
    assert (error.pointer, error.code) == (f"/trainer/sampler{pointer}", code)


def test_balanced_weights_need_classes() -> None:
    _, (error,) = checked({"type": "WeightedRandomSampler", "weights": "balanced"}, targets=REGRESSION)
    assert (error.pointer, error.code) == ("/trainer/sampler/weights", "wrong_task")


def test_every_sampler_of_torch_is_listed_or_left_out_with_a_reason() -> None:
    found = [value for value in vars(torch.utils.data).values() if isinstance(value, type)]
    named = {cls.__name__ for cls in found if issubclass(cls, torch.utils.data.Sampler)}
    assert {*FAMILY.types, *FAMILY.absent} == named
