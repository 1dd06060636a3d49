"""Which rows train and which validate."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.data.manifest import ColumnStats, Manifest
from core.data.splits import resolve_split, rows_to_test, set_aside, training_count, validation_count
from modelyard.specs import Feature, ProblemError, Split
from tests import manifests

CITIES = [("bern", 40), ("bonn", 30), ("rome", 20), ("wien", 10)]


def grouped(dtype: str = "string", splits: dict[str, int] | None = None, **stats: Any) -> Manifest:
    """100 training rows in four cities, unless told otherwise."""
    found = manifests.images(splits=splits or {"train": 100, "test": 20})
    found.features["city"] = Feature(dtype, [])
    found.columns["city"] = ColumnStats(**{"count": 100, "values": CITIES, **stats})
    return found


def resolved(split: Split, found: Manifest) -> tuple[int | None, list[ProblemError], list[str]]:
    errors: list[ProblemError] = []
    warnings: list[str] = []
    return resolve_split(split, found, errors, warnings), errors, warnings


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


@pytest.mark.parametrize("name", ["val", "test", "holdout"])
def test_a_split_that_is_named_validates_and_all_of_train_trains(name: str) -> None:
    found = manifest(train=30, val=6, test=4, holdout=5)
    split = Split(validation=name)
    training, validation = set_aside(found, split, labels(a=15, b=15))
    assert training.tolist() == list(range(30))
    assert validation.tolist() == list(found.rows_of(name))
    assert resolved(split, found)[0] == 30


def test_a_test_split_that_validates_is_not_measured_as_a_test_and_the_plan_says_so() -> None:
    found = manifest(train=30, test=4)
    split = Split(validation="test")
    assert len(rows_to_test(found, split)) == 0
    assert list(rows_to_test(found, Split())) == [30, 31, 32, 33]
    (warning,) = resolved(split, found)[2]
    assert warning.startswith("/split/validation: the test split chooses")
    assert resolved(Split(), found)[2] == []


@pytest.mark.parametrize("name", ["vall", "train", "holdout"])
def test_a_split_that_cannot_validate_is_refused_with_those_that_can(name: str) -> None:
    rows, (error,), _ = resolved(Split(validation=name), manifest(train=30, val=6, test=4, empty=0))
    assert rows is None
    assert (error.pointer, error.code) == ("/split/validation", "unknown_split")
    assert "Valid are: val, test, or a fraction" in error.message
    assert ('Did you mean "val"?' in error.message) == (name == "vall")


def test_a_dataset_without_other_splits_asks_for_a_fraction() -> None:
    _, (error,), _ = resolved(Split(validation="val"), manifest(train=30))
    assert "Valid are: a fraction of the training rows." in error.message


@given(st.floats(0.01, 0.99), st.integers(0, 2**63 - 1), st.booleans())
def test_groups_stay_on_one_side_and_the_plan_counts_what_the_loader_sets_aside(
    fraction: float, seed: int, stratify: bool
) -> None:
    split = Split(validation=fraction, group="city", seed=seed, stratify=stratify)
    groups = [city for city, count in CITIES for _ in range(count)]
    training, validation = set_aside(grouped(), split, labels(a=50, b=50), groups)
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(100))
    assert {groups[row] for row in training}.isdisjoint(groups[row] for row in validation)
    assert resolved(split, grouped())[0] == len(training)
    # 10, 20, … 90 rows can be made of 10, 20, 30 and 40.
    assert abs(len(validation) - 100 * fraction) <= 9.5


@pytest.mark.parametrize(
    ("found", "group", "code"),
    [
        (grouped(), "town", "unknown_column"),
        (grouped(), "image", "wrong_kind"),
        (grouped("float64"), "city", "wrong_kind"),
        (grouped(missing=3), "city", "missing_values"),
        (grouped(values=[("bern", 100)]), "city", "one_group"),
        (grouped(values=None), "city", "too_many_groups"),
    ],
)
def test_a_column_that_cannot_group_is_refused(found: Manifest, group: str, code: str) -> None:
    rows, (error,), _ = resolved(Split(group=group), found)
    assert rows is None
    assert (error.pointer, error.code) == ("/split/group", code)


def test_groups_too_many_to_list_are_counted_by_their_sizes() -> None:
    # 1,200 groups of one row and 400 of two: any count can be made, so a tenth of 2,000 is.
    found = grouped(splits={"train": 2000}, values=None, repeats=[(1, 1200), (2, 400)])
    split = Split(group="city", stratify=False)
    groups = [f"g{number}" for number in range(1600)] + [f"g{number}" for number in range(400)]
    training, validation = set_aside(found, split, None, groups)
    assert len(validation) == 200
    assert resolved(split, found)[0] == len(training)


def test_a_group_beside_a_split_that_validates_is_warned_about() -> None:
    rows, errors, (warning,) = resolved(Split(group="city"), grouped(splits={"train": 100, "val": 10}))
    assert (rows, errors) == (100, [])
    assert warning.startswith("/split/group: the split val of the dataset validates")
