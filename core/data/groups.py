"""Rows that belong together (those of one patient, say) set aside as a whole.

How many rows come aside is a function of the groups' sizes alone, so that a plan knows it from the manifest;
which groups they are depends on the seed, the groups' values and the labels.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

# N rows, G groups, C classes

#: So many orders of the groups are tried and the one that keeps the classes' shares best is taken; beyond
#: `FEW_GROUPS` the first order is near enough.
ORDERS = 64
FEW_GROUPS = 1000

#: The last rows are chosen so that the count comes out exactly; the window is at least so many.
_LEAST_WINDOW = 4096


def nearest_count(sizes: Mapping[int, int], wanted: int) -> int:
    """How many rows whole groups can make, as near `wanted` as there is, with a group left on both sides; of
    two equally near the fewer. `sizes` says how many groups have so many rows; there are at least two groups.

    A bounded subset sum: bit n of an integer says whether some groups have n rows together.
    """
    total, largest = sum(size * count for size, count in sizes.items()), max(sizes)
    # Groups put in one by one pass `wanted` by less than the largest.
    mask = (1 << min(total, wanted + largest + 1)) - 1
    reach = 1
    for size, count in sorted(sizes.items()):
        for part in _powers(count):
            reach |= (reach << (size * part)) & mask
        if 0 < wanted < total and reach >> wanted & 1:
            return wanted
    first = max(1, wanted - largest)
    near = [first + place for place, bit in enumerate(reversed(f"{reach >> first:b}")) if bit == "1"]
    return min(near, key=lambda count: (abs(count - wanted), count))


def choose_groups(
    groups: Sequence[Hashable], labels_N: NDArray[np.int64] | None, wanted: int, seed: int
) -> NDArray[np.bool_]:
    """Which of N rows are set aside: `nearest_count` of them, whole groups.

    With labels the shares of the classes are kept by a greedy rule, as scikit-learn's StratifiedGroupKFold
    has one: groups are gone through in the order of a hash of seed and value, and a group comes aside where
    that lowers

        sum over classes c of (n_c - t_c)^2 / N_c

    n_c rows of the class aside so far, t_c the class's share of those wanted, N_c all its rows; unless the
    groups that follow could then no longer make the count. scikit-learn sorts by the spread of a group's
    classes, has folds of like size in place of a count, and takes one order.
    """
    codes_N, values = _coded(groups)
    sizes_G = np.bincount(codes_N)
    count = nearest_count(Counter(sizes_G.tolist()), wanted)
    if labels_N is None:
        counts_GC = sizes_G[:, None]
    else:
        classes, class_N = np.unique(labels_N, return_inverse=True)
        counts_GC = np.zeros((len(values), len(classes)), dtype=np.int64)
        np.add.at(counts_GC, (codes_N, class_N.reshape(-1)), 1)
    # The smaller side is filled: the rest is the other.
    is_flipped = count > len(codes_N) // 2
    filled = len(codes_N) - count if is_flipped else count
    tries = ORDERS if labels_N is not None and len(values) <= FEW_GROUPS else 1
    found = [_fill(counts_GC, _order(values, seed, number), filled) for number in range(tries)]
    best_G = min(found, key=lambda taken_G: _deviation(counts_GC, taken_G, filled))
    is_aside_N: NDArray[np.bool_] = best_G[codes_N]
    return ~is_aside_N if is_flipped else is_aside_N


def _powers(count: int) -> list[int]:
    """Parts whose sums make every number up to `count`: 1, 2, 4, … and what is left."""
    parts, part = [], 1
    while part < count:
        parts.append(part)
        count -= part
        part *= 2
    return [*parts, count]


def _coded(groups: Sequence[Hashable]) -> tuple[NDArray[np.int64], list[Hashable]]:
    code_of: dict[Hashable, int] = {}
    codes_N = np.fromiter(
        (code_of.setdefault(group, len(code_of)) for group in groups), np.int64, len(groups)
    )
    return codes_N, list(code_of)


def _order(values: list[Hashable], seed: int, number: int) -> list[int]:
    """Not that of the file, so that a group's place depends on the seed and its value."""
    digests = [hashlib.blake2b(f"{seed}/{number}/{value!r}".encode()).digest() for value in values]
    return sorted(range(len(values)), key=digests.__getitem__)


def _fill(counts_GC: NDArray[np.int64], order: list[int], count: int) -> NDArray[np.bool_]:
    """Groups of `count` rows together, which some groups have. Far from the count any group may be taken; in
    the last `window` rows only what lets the rest make it. Where the window was too small it grows."""
    window = max(_LEAST_WINDOW, 64 * int(counts_GC.sum(axis=1).max()))
    while (taken_G := _fill_within(counts_GC, order, count, window)) is None:
        window *= 4
    return taken_G


def _fill_within(
    counts_GC: NDArray[np.int64], order: list[int], count: int, window: int
) -> NDArray[np.bool_] | None:
    sizes = counts_GC.sum(axis=1).tolist()
    scales_C = 1.0 / counts_GC.sum(axis=0)
    missing_C = count / sum(sizes) / scales_C  # t_c - n_c
    taken_G = np.zeros(len(sizes), dtype=bool)
    left, rest, place = count, sum(sizes), 0

    def is_wanted(group: int) -> bool:
        rows_C = counts_GC[group]
        return bool(((rows_C - 2 * missing_C) * rows_C * scales_C).sum() < 0)

    while left > window and rest > left + window:
        group = order[place]
        rest -= sizes[group]
        place += 1
        if is_wanted(group):
            taken_G[group] = True
            missing_C = missing_C - counts_GC[group]
            left -= sizes[group]
    tail = order[place:]
    reach = _reachable([sizes[group] for group in tail], left)
    if not reach[0] >> left & 1:
        return None
    for group, after in zip(tail, reach[1:], strict=True):
        size = sizes[group]
        can_take = size <= left and after >> (left - size) & 1
        can_leave = after >> left & 1
        if can_take and (not can_leave or is_wanted(group)):
            taken_G[group] = True
            missing_C = missing_C - counts_GC[group]
            left -= size
    return taken_G


def _reachable(sizes: list[int], most: int) -> list[int]:
    """For each place the sums up to `most` that groups from there on can make, as bits; the last is of none.
    Equal neighbours are one object: once every sum is reached no more memory is taken."""
    mask = (1 << (most + 1)) - 1

    def grown(reach: int, size: int) -> int:
        more = reach | (reach << size) & mask
        return reach if more == reach else more

    return list(accumulate(reversed(sizes), grown, initial=1))[::-1]


def _deviation(counts_GC: NDArray[np.int64], taken_G: NDArray[np.bool_], count: int) -> float:
    totals_C = counts_GC.sum(axis=0)
    wanted_C = totals_C * (count / totals_C.sum())
    return float(((counts_GC[taken_G].sum(axis=0) - wanted_C) ** 2 / totals_C).sum())
