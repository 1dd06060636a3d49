"""Which rows train and which validate. A function of the spec alone, so that it can be repeated."""

import numpy as np
from numpy.typing import NDArray

from core.data.manifest import Manifest
from modelyard.specs import Split

# N rows


def validation_count(num_rows: int, fraction: float) -> int:
    """At least one row validates and at least one trains."""
    return min(max(1, round(num_rows * fraction)), max(1, num_rows - 1))


def training_count(manifest: Manifest, split: Split) -> int:
    train = len(manifest.rows_of("train"))
    return train if manifest.splits.get("val") else train - validation_count(train, split.validation)


def set_aside(
    manifest: Manifest, split: Split, labels_N: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers (training, validation), each in the order of the file.

    The dataset's own `val` split, else a part of `train`: by class in proportion (largest remainder)
    where `labels_N`, the labels of the `train` rows, are given.
    """
    rows_N = np.asarray(manifest.rows_of("train"), dtype=np.int64)
    if manifest.splits.get("val"):
        return rows_N, np.asarray(manifest.rows_of("val"), dtype=np.int64)
    count = validation_count(len(rows_N), split.validation)
    order_N = np.random.Generator(np.random.PCG64(split.seed)).random(len(rows_N)).argsort(kind="stable")
    if labels_N is None or not split.stratify:
        chosen = order_N[:count]
    else:
        chosen = _by_class(order_N, labels_N, count)
    is_validation_N = np.zeros(len(rows_N), dtype=bool)
    is_validation_N[chosen] = True
    return rows_N[~is_validation_N], rows_N[is_validation_N]


def _by_class(order_N: NDArray[np.int64], labels_N: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    classes, sizes = np.unique(labels_N, return_counts=True)
    exact = sizes * (count / len(labels_N))
    quota = np.floor(exact).astype(np.int64)
    # A class with one row trains on it: validating on what was never seen says nothing.
    by_remainder = np.lexsort((quota - exact, quota + 1 >= sizes))
    for position in by_remainder[: count - quota.sum()]:
        quota[position] += 1
    shuffled_labels = labels_N[order_N]
    return np.concatenate(
        [order_N[shuffled_labels == label][:take] for label, take in zip(classes, quota, strict=True)]
    )
