"""Whole groups set aside."""

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from core.data.groups import choose_groups, nearest_count


def grouped(sizes: list[int]) -> list[str]:
    return [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]


def leaning(seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """60 groups that lean to one of three classes each, as the pictures of one patient do."""
    random = np.random.default_rng(seed)
    sizes = random.integers(3, 30, 60)
    groups = grouped(sizes.tolist())
    usual = np.repeat(random.integers(0, 3, 60), sizes)
    return groups, np.where(random.random(len(groups)) < 0.7, usual, random.integers(0, 3, len(groups)))


def error(labels_N: NDArray[np.int64], is_aside_N: NDArray[np.bool_]) -> float:
    """How far the share of the worst class is from a fifth."""
    shares = np.bincount(labels_N[is_aside_N], minlength=3) / np.bincount(labels_N)
    return float(np.abs(shares - 0.2).max())


@given(st.lists(st.integers(1, 12), min_size=2, max_size=8), st.data())
def test_the_count_is_the_nearest_that_whole_groups_can_make(sizes: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, sum(sizes)))
    every_sum = {sum(some) for many in range(1, len(sizes)) for some in combinations(sizes, many)}
    nearest = min(every_sum, key=lambda count: (abs(count - wanted), count))
    assert nearest_count(Counter(sizes), wanted) == nearest


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=25),
    st.floats(0.02, 0.98),
    st.integers(0, 2**63 - 1),
    st.booleans(),
)
def test_whole_groups_come_aside_and_their_count_is_known_from_their_sizes(
    sizes: list[int], fraction: float, seed: int, is_stratified: bool
) -> None:
    groups = grouped(sizes)
    labels_N = np.random.default_rng(seed % 1000).integers(0, 3, len(groups)) if is_stratified else None
    wanted = max(1, round(fraction * len(groups)))
    is_aside_N = choose_groups(groups, labels_N, wanted, seed)
    assert is_aside_N.sum() == nearest_count(Counter(sizes), wanted)
    sides = {(group, bool(aside)) for group, aside in zip(groups, is_aside_N, strict=True)}
    assert len(sides) == len(sizes)


def test_a_count_that_only_few_choices_make_is_made() -> None:
    # 300 groups of 100 rows and one of 57: 3,057 rows need that one, 3,000 must do without it.
    groups = grouped([100] * 300 + [57])
    aside = [choose_groups(groups, None, wanted, seed=4) for wanted in (3057, 3000)]
    assert [int(is_aside_N.sum()) for is_aside_N in aside] == [3057, 3000]
    assert [bool(is_aside_N[-1]) for is_aside_N in aside] == [True, False]


def test_many_groups_of_two_and_three_rows_make_the_count() -> None:
    groups = grouped([2, 3] * 20_000)
    assert choose_groups(groups, None, 10_001, seed=1).sum() == 10_001


def test_the_seed_and_the_values_decide_and_the_order_in_the_file_does_not() -> None:
    groups = grouped([5] * 40)
    first, again, other = (choose_groups(groups, None, 40, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    turned = choose_groups(groups[::-1], None, 40, seed=1)
    assert turned[::-1].tolist() == first.tolist()


def test_with_labels_the_shares_of_the_classes_are_as_near_as_scikit_learns() -> None:
    ours, theirs, blind = [], [], []
    for seed in range(10):
        groups, labels_N = leaning(seed)
        fifth = len(groups) // 5
        ours.append(error(labels_N, choose_groups(groups, labels_N, fifth, seed)))
        blind.append(error(labels_N, choose_groups(groups, None, fifth, seed)))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for _, fold in folds.split(labels_N, labels_N, groups):
            is_fold_N = np.zeros(len(groups), dtype=bool)
            is_fold_N[fold] = True
            theirs.append(error(labels_N, is_fold_N))
    assert np.mean(ours) <= np.mean(theirs)
    assert np.mean(ours) < 0.2 * np.mean(blind)


def test_without_labels_groups_are_drawn_like_lots() -> None:
    # Each of 20 equal groups comes aside in a fifth of 2,000 seeds: 400 with a deviation of 18.
    groups = grouped([3] * 20)
    drawn = sum(choose_groups(groups, None, 12, seed)[::3].astype(int) for seed in range(2000))
    assert (np.abs(drawn - 400) < 90).all()
