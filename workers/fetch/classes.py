"""The names of a dataset's classes, as torchvision's own object knows them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def names_of(dataset: Any) -> list[str] | None:
    """By index; None where the class has none. Several names of one class (Imagenette): the first."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        return None
    return [name if isinstance(name, str) else str(name[0]) for name in names]


def without_unused(
    names: Sequence[str] | None, labels: Mapping[str, NDArray[np.int64]]
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Names and labels without classes that no row has (EMNIST's letters begin with one): indices move up."""
    used = np.unique(np.concatenate(list(labels.values())))
    found = [str(index) if names is None else names[index] for index in used.tolist()]
    return found, {split: np.searchsorted(used, values) for split, values in labels.items()}
