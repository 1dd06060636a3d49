"""Write scikit-learn's handwritten digits as an image set: 1,797 PNGs of 8x8 pixels and two CSVs, in one zip.

    python -m examples.digits.make_digits digits.zip

Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998; it comes with
scikit-learn.
"""

import csv
import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

#: Every fifth picture is kept for the test.
TEST_EVERY = 5
#: The set's pixels are counts of 0 to 16 dots.
DARKEST = 16


@dataclass(frozen=True)
class Picture:
    path: str
    label: int
    png: bytes


def pictures(split: str) -> list[Picture]:
    """The pictures of `train` or of `test`, in the order of the set."""
    digits = load_digits()
    return [
        Picture(f"{split}/{index:04}.png", int(label), _png(image))
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True))
        if (index % TEST_EVERY == 0) == (split == "test")
    ]


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # a PNG is already compressed
        for split in ("train", "test"):
            members = pictures(split)
            for picture in members:
                archive.writestr(picture.path, picture.png)
            archive.writestr(f"{split}.csv", _annotations(members))


def _annotations(members: list[Picture]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows([picture.path, picture.label] for picture in members)
    return lines.getvalue()


def _png(image_HW: np.ndarray) -> bytes:  # H, W = 8, 8
    grey_HW = np.round(image_HW * (255 / DARKEST)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey_HW).save(file, format="PNG")
    return file.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected one argument: the zip to write, for example digits.zip")
    write_zip(Path(sys.argv[1]))
