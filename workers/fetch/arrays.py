"""Datasets that hold all their images in one array, as MNIST and CIFAR: to an .npz of x and y."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.images import is_channels_last
from workers.fetch.classes import names_of, without_unused

# N rows, C channels, H height, W width


def write_arrays(datasets: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Writes `path` from torchvision's objects by split; returns the options for ingest."""
    labels = {split: _labels(dataset) for split, dataset in datasets.items()}
    names, indices = without_unused(names_of(next(iter(datasets.values()))), labels)
    arrays: dict[str, NDArray[Any]] = {}
    for split, dataset in datasets.items():
        ending = "" if split == "train" else f"_{split}"
        arrays |= {f"x{ending}": _images(dataset), f"y{ending}": indices[split]}
    np.savez(path, allow_pickle=False, **arrays)
    return {"classes": names}


def _images(dataset: Any) -> NDArray[np.uint8]:
    """[N, H, W] or [N, C, H, W]."""
    images = np.asarray(dataset.data)
    if images.ndim == 4 and is_channels_last(images.shape[1:]):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def _labels(dataset: Any) -> NDArray[np.int64]:
    """[N]; of QMNIST's rows of eight numbers the first is the class."""
    labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels).astype(np.int64)
    return labels[:, 0] if labels.ndim == 2 else labels
