"""MNIST's own files through the ingest process, beside torchvision's reading of the same bytes."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets.mnist import read_image_file, read_label_file

from core.data.arrow import open_table
from core.data.manifest import Kind
from core.data.preview import preview_png
from tests.integration.test_ingest_process import ingested, refused
from tests.make_data import idx_bytes, mnist_files, tar_bytes, zip_bytes


def test_mnists_files_become_the_arrays_that_torchvision_reads(tmp_path: Path) -> None:
    files = mnist_files(train=50, test=30, side=6)
    manifest, arrow = ingested(
        tmp_path, zip_bytes({f"MNIST/raw/{name}": data for name, data in files.items()})
    )
    assert (manifest.format, manifest.kind) == ("idx", Kind.ARRAYS)
    assert manifest.splits == {"train": 50, "test": 30}
    assert (manifest.features["x"].dtype, manifest.features["x"].shape) == ("uint8", [6, 6])
    assert manifest.classes == [str(digit) for digit in range(10)]
    assert manifest.class_counts == {"train": [5] * 10, "test": [3] * 10}
    table = open_table(arrow)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        paths = {}
        for kind in ("images-idx3", "labels-idx1"):
            paths[kind] = tmp_path / kind
            paths[kind].write_bytes(files[f"{prefix}-{kind}-ubyte"])
        rows = manifest.rows_of(split)
        part = table.slice(rows.start, len(rows))
        assert part["x"].to_pylist() == read_image_file(str(paths["images-idx3"])).flatten(1).tolist()
        assert part["y"].to_pylist() == read_label_file(str(paths["labels-idx1"])).tolist()
    assert preview_png(arrow, manifest, 2, 2).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("dots", "gz", "packing"),
    [(False, True, "zip"), (True, False, "zip"), (False, True, ""), (True, True, "gz")],
)
def test_packing_and_names_make_no_difference(tmp_path: Path, dots: bool, gz: bool, packing: str) -> None:
    def packed(files: dict[str, bytes]) -> bytes:
        return zip_bytes(files) if packing == "zip" else tar_bytes(files, packing)

    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    plain, _ = ingested(tmp_path / "plain", zip_bytes(mnist_files()))
    other, _ = ingested(tmp_path / "other", packed(mnist_files(dots=dots, gz=gz)))
    assert other == plain


def test_a_folder_as_torchvision_leaves_it_holds_each_file_plain_and_packed(tmp_path: Path) -> None:
    plain = mnist_files()
    both = {f"raw/{name}": data for name, data in (plain | mnist_files(gz=True)).items()}
    manifest, _ = ingested(tmp_path, zip_bytes(both))
    assert manifest.num_samples == sum(len(data) - 8 for name, data in plain.items() if "labels" in name)


def test_classes_are_named_by_the_options(tmp_path: Path) -> None:
    names = ["T-shirt/top", "Trouser", "Pullover"]
    manifest, arrow = ingested(tmp_path, zip_bytes(mnist_files(classes=2)), classes=names, format="idx")
    assert manifest.classes == names
    assert manifest.class_counts["train"] == [10, 10, 0]
    assert open_table(arrow)["y"].to_pylist()[:4] == [0, 1, 0, 1]


def test_folders_may_say_the_split(tmp_path: Path) -> None:
    pair = {
        "images.idx3-ubyte": idx_bytes(np.zeros((4, 2, 2), "uint8")),
        "labels.idx1-ubyte": idx_bytes(np.arange(4, dtype="uint8")),
    }
    files = {f"{folder}/{name}": data for folder in ("training", "testing") for name, data in pair.items()}
    manifest, _ = ingested(tmp_path, zip_bytes(files))
    assert manifest.splits == {"train": 4, "test": 4}


LABELS = "train-labels-idx1-ubyte"
IMAGES = "train-images-idx3-ubyte"
BOMB = struct.pack(">HBB3I", 0, 8, 3, 20, 1, 40_000_000) + bytes(30_000_000)
REFUSED: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "no labels": ({IMAGES: mnist_files()[IMAGES]}, {}, "wrong_files"),
    "only a test": ({k: v for k, v in mnist_files().items() if k.startswith("t10k")}, {}, "wrong_files"),
    "fewer labels": ({**mnist_files(), LABELS: idx_bytes(np.zeros(19, "uint8"))}, {}, "length_mismatch"),
    "float labels": ({**mnist_files(), LABELS: idx_bytes(np.zeros(20, "float32"))}, {}, "bad_labels"),
    "label pairs": ({**mnist_files(), LABELS: idx_bytes(np.zeros((20, 2), "uint8"))}, {}, "bad_labels"),
    "too few names": (mnist_files(), {"classes": ["a", "b"], "format": "idx"}, "unseen_label"),
    "names twice": (mnist_files(), {"classes": ["a"] * 10, "format": "idx"}, "bad_options"),
    "names no strings": (mnist_files(), {"classes": [1, 2], "format": "idx"}, "bad_options"),
    "other options": (mnist_files(), {"text": "x", "format": "idx"}, "bad_options"),
    "a bomb": (
        {**mnist_files(gz=True), f"{IMAGES}.gz": gzip.compress(BOMB)},
        {},
        "archive_bomb",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, case: str) -> None:
    files, options, code = REFUSED[case]
    assert refused(tmp_path, zip_bytes(files), **options)["code"] == code
