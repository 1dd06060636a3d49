"""Pictures that cost nothing to make: each class has squares of its own, and each picture its noise."""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.cases import Case

# N pictures, C channels, H height, W width

CLASSES = 10
NOISE = 24
Pixels = NDArray[np.uint8]


def make_pictures(case: Case, per_class: int, seed: int) -> tuple[Pixels, list[int]]:
    """[N, C, H, W] and the class of each, classes in turn. The squares are those of the case, whatever the
    seed."""
    channels, height, width = case.shape
    squares = np.random.default_rng(0).integers(
        0, 256, (CLASSES, channels, height // case.tile, width // case.tile)
    )
    templates = squares.repeat(case.tile, axis=2).repeat(case.tile, axis=3)
    labels = [*range(CLASSES)] * per_class
    noise = np.random.default_rng(seed).normal(0, NOISE, (len(labels), *case.shape))
    return np.clip(templates[labels] + noise, 0, 255).astype(np.uint8), labels


def write_zip(case: Case, path: Path) -> Path:
    """Class folders of PNGs under `train` and `val`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for split, per_class, seed in (("train", case.per_class, 1), ("val", 2, 2)):
            pictures, labels = make_pictures(case, per_class, seed)
            for number, (pixels, label) in enumerate(zip(pictures, labels, strict=True)):
                archive.writestr(f"{split}/{label}/{number}.png", encode(pixels, "PNG"))
    return path


def encode(pixels_CHW: Pixels, kind: str) -> bytes:
    """As a PNG or a JPEG."""
    pixels = pixels_CHW[0] if len(pixels_CHW) == 1 else pixels_CHW.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, quality=90)
    return buffer.getvalue()
