"""Datasets of image files, as Flowers102 and Food101: to a zip of the files and a CSV a split."""

import csv
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.data.images import FORMATS
from workers.fetch.classes import names_of, without_unused

#: A fixed time in every entry, so that fetching twice gives the same bytes.
ENTRY_TIME = (1980, 1, 1, 0, 0, 0)

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
_MODES = frozenset({"1", "L", "RGB", "P", "CMYK", "YCbCr"})


def write_files(datasets: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Writes `path` from torchvision's objects by split; returns the options for ingest."""
    labels: dict[str, list[int]] = {}
    files: dict[str, list[str]] = {}
    with zipfile.ZipFile(path, "w") as archive:
        for split, dataset in datasets.items():
            labels[split], files[split] = [], []
            for number in range(len(dataset)):
                item, label = dataset[number]
                suffix, data = _encoded(item)
                files[split].append(f"images/{split}/{number:06}{suffix}")
                labels[split].append(int(label))
                archive.writestr(zipfile.ZipInfo(files[split][-1], ENTRY_TIME), data)
        arrays = {split: np.array(found, np.int64) for split, found in labels.items()}
        names, indices = without_unused(names_of(next(iter(datasets.values()))), arrays)
        for split, found in files.items():
            rows = [(file, names[index]) for file, index in zip(found, indices[split].tolist(), strict=True)]
            archive.writestr(zipfile.ZipInfo(f"{split}.csv", ENTRY_TIME), _csv(rows))
    return {"label": "class", "image_column": "file", "label_column": "label"}


def _encoded(item: Any) -> tuple[str, bytes]:
    """A file as it is where ingest reads it; else the picture that torchvision's loader gives, as PNG."""
    if isinstance(item, Image.Image):
        return ".png", _png(item)
    with Image.open(item) as image:
        suffix = _SUFFIXES.get(image.format or "")
        is_plain = (
            suffix is not None
            and (image.format in FORMATS or image.format == "MPO")
            and image.mode in _MODES
            and "transparency" not in image.info
            and (image.format == "MPO" or not getattr(image, "is_animated", False))
        )
        if suffix is not None and is_plain:
            return suffix, Path(item).read_bytes()
        return ".png", _png(image.convert("RGB"))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _csv(rows: list[tuple[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([("file", "label"), *rows])
    return out.getvalue().encode()
