"""Which rows train and which validate."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.data.manifest import Manifest
from core.data.splits import set_aside, training_count, validation_count
from modelyard.specs import Split
from tests import manifests


def manifest(**splits: int) -> Manifest:
    return manifests.images(splits=splits)


def labels(**counts: int) -> NDArray[np.int64]:
    """Shuffled class indices, so many of each."""
    labels_N = np.repeat(np.arange(len(counts)), list(counts.values()))
    return np.random.default_rng(5).permutation(labels_N).astype(np.int64)


def validation_rows(split: Split, labels_N: NDArray[np.int64] | None = None, **splits: int) -> list[Any]:
    rows: list[Any] = set_aside(manifest(**splits), split, labels_N)[1].tolist()
    return rows


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=6),
    st.floats(0.01, 0.9),
    st.booleans(),
    st.integers(0, 2**63 - 1),
)
def test_every_row_of_train_either_trains_or_validates(
    sizes: list[int], fraction: float, stratify: bool, seed: int
) -> None:
    labels_N = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    split = Split(validation=fraction, stratify=stratify, seed=seed)
    training, validation = set_aside(manifest(train=len(labels_N), test=5), split, labels_N)
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(len(labels_N)))
    assert len(validation) == validation_count(len(labels_N), fraction)
    assert training.tolist() == sorted(training.tolist())


@given(st.integers(2, 10_000), st.floats(0.001, 0.999))
def test_the_count_is_the_fraction_rounded_and_leaves_a_row_on_both_sides(rows: int, fraction: float) -> None:
    count = validation_count(rows, fraction)
    assert 1 <= count <= rows - 1
    if 1 <= rows * fraction <= rows - 1:
        assert abs(count - rows * fraction) <= 0.5


def test_classes_validate_in_proportion() -> None:
    labels_N = labels(a=700, b=200, c=100)
    rows = validation_rows(Split(validation=0.1), labels_N, train=1000)
    assert Counter(labels_N[rows].tolist()) == {0: 70, 1: 20, 2: 10}


def test_the_largest_remainders_get_the_rows_that_are_left() -> None:
    # 25 of 100 rows: 12.75, 8.25 and 4.0 by proportion; Hamilton's method gives the odd one to the first.
    labels_N = labels(a=51, b=33, c=16)
    rows = validation_rows(Split(validation=0.25), labels_N, train=100)
    assert Counter(labels_N[rows].tolist()) == {0: 13, 1: 8, 2: 4}


def test_without_stratify_labels_do_not_matter() -> None:
    split = Split(validation=0.2, stratify=False)
    assert validation_rows(split, labels(a=90, b=10), train=100) == validation_rows(split, None, train=100)


def test_the_same_seed_sets_the_same_rows_aside_and_another_seed_others() -> None:
    first, again, other = (validation_rows(Split(seed=seed), None, train=500) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_seed_decides_within_a_class_too() -> None:
    labels_N = labels(a=250, b=250)
    first, other = (validation_rows(Split(seed=seed), labels_N, train=500) for seed in (0, 1))
    assert first != other


def test_the_chosen_rows_are_spread_over_the_file() -> None:
    rows = np.array(validation_rows(Split(validation=0.5), None, train=1000))
    # 500 of 1000 without order: the upper half holds 250 with a standard deviation of 7.9.
    assert 200 < (rows >= 500).sum() < 300


@pytest.mark.parametrize("split", [Split(), Split(validation=0.5, seed=9)])
def test_the_datasets_own_val_split_is_used_and_the_fraction_is_not(split: Split) -> None:
    training, validation = set_aside(manifest(train=30, val=6, test=4), split, labels(a=15, b=15))
    assert training.tolist() == list(range(30))
    assert validation.tolist() == list(range(30, 36))


@pytest.mark.parametrize("splits", [{"train": 10, "val": 3}, {"train": 10, "test": 3}, {"train": 2}])
def test_the_count_of_training_rows_is_known_without_choosing_them(splits: dict[str, int]) -> None:
    split = Split(validation=0.25)
    training, _ = set_aside(manifest(**splits), split, None)
    assert training_count(manifest(**splits), split) == len(training)
