"""Which rows train and which validate. A function of the spec and the dataset, so that it can be repeated."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.data.groups import choose_groups, nearest_count
from core.data.manifest import Manifest
from core.faults import fault, show, suggestion
from modelyard.specs import ProblemError, Split

# N rows

TRAIN, VAL, TEST = "train", "val", "test"


def resolve_split(
    split: Split, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> int | None:
    """How many rows train; None where the spec can't be followed, and then `errors` says why."""
    before = len(errors)
    if isinstance(split.validation, str):
        _check_named(split.validation, manifest, errors, warnings)
    named = validation_split(manifest, split)
    if split.group is not None and named is None:
        _check_group(split.group, manifest, errors)
    elif split.group is not None:
        warnings.append(
            f"/split/group: the split {named} of the dataset validates, so nothing is set aside by "
            f'{show(split.group)}; leave it out, or say "validation": a fraction of a dataset without val.'
        )
    return training_count(manifest, split) if len(errors) == before else None


def validation_split(manifest: Manifest, split: Split) -> str | None:
    """The split of the dataset that validates: the one that is named, else its own `val`. None where a part
    of the training rows does."""
    if isinstance(split.validation, str):
        return split.validation
    return VAL if manifest.splits.get(VAL) else None


def validation_count(num_rows: int, fraction: float) -> int:
    """At least one row validates and at least one trains."""
    return min(max(1, round(num_rows * fraction)), max(1, num_rows - 1))


def training_count(manifest: Manifest, split: Split) -> int:
    """The count of `set_aside`, from the manifest alone; the split has been checked."""
    rows = len(manifest.rows_of(TRAIN))
    if isinstance(split.validation, str) or validation_split(manifest, split) is not None:
        return rows
    count = validation_count(rows, split.validation)
    if split.group is not None:
        sizes = _group_sizes(manifest, split.group)
        assert sizes is not None, "the split was checked"
        count = nearest_count(sizes, count)
    return rows - count


def rows_to_test(manifest: Manifest, split: Split) -> range:
    """What measures the trained model. A split that has chosen the checkpoint can't: it is empty then."""
    return range(0) if split.validation == TEST else manifest.rows_of(TEST)


def set_aside(
    manifest: Manifest,
    split: Split,
    labels_N: NDArray[np.int64] | None,
    groups: Sequence[Hashable] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers (training, validation), each in the order of the file.

    A split of the dataset, else a part of `train`. Where `labels_N`, the labels of the `train` rows, are
    given, by class in proportion (largest remainder). Where `groups`, the values of their `split.group`, are
    given, whole groups: see `choose_groups`.
    """
    rows_N = np.asarray(manifest.rows_of(TRAIN), dtype=np.int64)
    named = validation_split(manifest, split)
    if named is not None or isinstance(split.validation, str):
        return rows_N, np.asarray(manifest.rows_of(named or VAL), dtype=np.int64)
    count = validation_count(len(rows_N), split.validation)
    labels_N = labels_N if split.stratify else None
    if groups is not None:
        is_validation_N = choose_groups(groups, labels_N, count, split.seed)
    else:
        is_validation_N = np.zeros(len(rows_N), dtype=bool)
        is_validation_N[_choose_rows(len(rows_N), labels_N, count, split.seed)] = True
    return rows_N[~is_validation_N], rows_N[is_validation_N]


def _check_named(name: str, manifest: Manifest, errors: list[ProblemError], warnings: list[str]) -> None:
    valid = [split for split, count in manifest.splits.items() if count and split != TRAIN]
    if name in valid:
        if name == TEST:
            warnings.append(
                "/split/validation: the test split chooses the checkpoint here, so it can't measure the "
                "model as well: the version has no test_* metrics."
            )
        return
    what = "Rows that train can't validate." if name == TRAIN else f"The dataset has no split {show(name)}."
    names = f"{', '.join(valid)}, or " if valid else ""
    message = f"{what}{suggestion(name, valid)} Valid are: {names}a fraction of the training rows."
    fault(errors, "/split/validation", "unknown_split", message)


def _check_group(name: str, manifest: Manifest, errors: list[ProblemError]) -> None:
    pointer, stats = "/split/group", manifest.columns.get(name)
    if name not in manifest.features:
        names = list(manifest.features)
        message = f"The dataset has no column {show(name)}.{suggestion(name, names)} It has {_listed(names)}."
        fault(errors, pointer, "unknown_column", message)
    elif stats is None or manifest.features[name].dtype not in ("int64", "string", "bool"):
        dtype = manifest.features[name].dtype
        message = (
            f"A group is named by a string, an integer or a bool of a table; {show(name)} holds {dtype}."
        )
        fault(errors, pointer, "wrong_kind", message)
    elif stats.missing:
        message = (
            f"{show(name)} is missing in {stats.missing} training rows: fill it, or leave those rows out."
        )
        fault(errors, pointer, "missing_values", message)
    elif (sizes := _group_sizes(manifest, name)) is None:
        message = (
            f"{show(name)} has too many distinct values to know the sizes of its groups before the job runs; "
            'upload the dataset with a split of its own and name it in "validation".'
        )
        fault(errors, pointer, "too_many_groups", message)
    elif sum(sizes.values()) < 2:
        message = (
            f"Expected at least two groups in {show(name)}, one to train and one to validate; it has one."
        )
        fault(errors, pointer, "one_group", message)


def _group_sizes(manifest: Manifest, name: str) -> dict[int, int] | None:
    """How many groups of the training rows have so many rows; None where the manifest doesn't say."""
    stats = manifest.columns.get(name)
    if stats is None:
        return None
    if stats.values is not None:
        return dict(Counter(count for _, count in stats.values))
    return dict(stats.repeats) if stats.repeats is not None else None


def _choose_rows(
    num_rows: int, labels_N: NDArray[np.int64] | None, count: int, seed: int
) -> NDArray[np.int64]:
    order_N = np.random.Generator(np.random.PCG64(seed)).random(num_rows).argsort(kind="stable")
    return order_N[:count] if labels_N is None else _by_class(order_N, labels_N, count)


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


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, … ({len(names)} columns)"
