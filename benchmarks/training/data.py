"""The images of both sides, written once into a temporary folder: the plain scripts read folders, the service
is given the same rows as an archive. Every tenth training row is the validation split of all."""

import csv
import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
MNIST = SHARED / "mnist-12k-csv-png.zip"
CIFAR = SHARED / "cifar10-12k-folders-jpeg.zip"

VALIDATION_EVERY = 10
MNIST_TILES = 6
PHOTO_SIDE = 224
#: Of so many photos one has a size of its own.
DIFFERS_EVERY = 4
TEST_PHOTOS = 200


class MissingData(Exception):
    """A shared archive is not on this machine."""


@dataclass(frozen=True)
class Files:
    """`folder` is what the plain scripts read; `archive` what is pushed to the service."""

    folder: Path
    archive: Path


def is_validation(row: int) -> bool:
    return row % VALIDATION_EVERY == 0


def write_mnist(folder: Path) -> Files:
    """As MNIST's own files: those that torchvision's class reads, and for the service a pair a split."""
    images_NHW, labels_N = _mnist_split("train")
    images_NHW, labels_N = np.tile(images_NHW, (MNIST_TILES, 1, 1)), np.tile(labels_N, MNIST_TILES)
    test = _mnist_split("test")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    _write_pair(raw, "train", images_NHW, labels_N)
    _write_pair(raw, "t10k", *test)
    ours = folder / "splits"
    ours.mkdir()
    is_held_out = np.array([is_validation(row) for row in range(len(labels_N))])
    _write_pair(ours, "train", images_NHW[~is_held_out], labels_N[~is_held_out])
    _write_pair(ours, "val", images_NHW[is_held_out], labels_N[is_held_out])
    _write_pair(ours, "test", *test)
    return Files(folder, _zip(ours, folder / "mnist.zip"))


def write_cifar(folder: Path, rows: int | None) -> Files:
    """Class folders under split folders; at most `rows` training images, and as they are where that is
    None."""
    images = folder / "images"
    for split, label, place, content in _cifar(rows):
        target = images / split / label / f"{place:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return Files(images, _zip(images, folder / "cifar.zip"))


def write_photos(folder: Path, count: int) -> Files:
    """Larger pictures made of CIFAR's: enlarged, with noise, so that a JPEG has something to hold."""
    images, rng = folder / "images", np.random.default_rng(0)
    sources = [item for item in _cifar(None) if item[0] == "train"]
    for number in range(count + TEST_PHOTOS):
        _, label, _, content = sources[number % len(sources)]
        split = "test" if number >= count else "val" if is_validation(number) else "train"
        target = images / split / label / f"{number:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        differs = number % DIFFERS_EVERY == 0
        size = tuple(int(side) for side in rng.integers(200, 321, 2)) if differs else (PHOTO_SIDE, PHOTO_SIDE)
        with Image.open(io.BytesIO(content)) as small:
            pixels_HWC = np.asarray(small.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
        noisy = np.clip(pixels_HWC + rng.normal(0, 8, pixels_HWC.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(target, quality=90)
    return Files(images, _zip(images, folder / "photos.zip"))


def _mnist_split(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with zipfile.ZipFile(_needed(MNIST)) as archive:
        lines = csv.DictReader(io.TextIOWrapper(archive.open(f"{split}.csv"), "utf-8"))
        names = [(line["Image_filename"], int(line["Label"])) for line in lines]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name, _ in names]
    return np.stack(images), np.array([label for _, label in names], np.uint8)


def _cifar(rows: int | None) -> Iterator[tuple[str, str, int, bytes]]:
    """(split, class, place in its split, JPEG) of each image, in an order in which classes take turns."""
    with zipfile.ZipFile(_needed(CIFAR)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        for split in ("train", "test"):
            # By file number, then by class: the first rows and every tenth hold all classes.
            chosen = sorted(
                (name.split("/")[2], name.split("/")[1]) for name in names if name.startswith(f"{split}/")
            )
            for place, (file, label) in enumerate(chosen[: rows if split == "train" else None]):
                into = "val" if split == "train" and is_validation(place) else split
                yield into, label, place, archive.read(f"{split}/{label}/{file}")


def _needed(archive: Path) -> Path:
    if not archive.exists():
        raise MissingData(
            f"expected {archive.name} in the folder shared/data beside the checkout; it is not on this "
            "machine: put it there, or train another case with --only"
        )
    return archive


def _write_pair(folder: Path, split: str, images_NHW: NDArray[np.uint8], labels_N: NDArray[np.uint8]) -> None:
    """IDX: two zero bytes, the type (8: uint8), the number of axes, each axis as 32 bits, the values."""
    for name, values in (("images-idx3", images_NHW), ("labels-idx1", labels_N)):
        header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        (folder / f"{split}-{name}-ubyte").write_bytes(header + values.tobytes())


def _zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path
