"""Images with a CSV of more than path and class: quantities as labels, and further columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.arrow import open_table
from core.data.preview import preview_png, read_rows
from tests.integration.test_ingest_process import ingested, refused
from tests.make_data import csv_bytes, image_bytes, zip_bytes


def packed(*rows: tuple[object, ...], header: tuple[str, ...], **splits: list[tuple[object, ...]]) -> bytes:
    """`rows` train; the first cell of a row names an image."""
    files = {
        f"{split}.csv": csv_bytes([header, *found]) for split, found in {"train": rows, **splits}.items()
    }
    for found in (rows, *splits.values()):
        files |= {str(row[0]): image_bytes(len(str(row[0]))) for row in found}
    return zip_bytes(files)


def test_labels_with_a_fraction_are_quantities(tmp_path: Path) -> None:
    ages = [("0.png", 1), ("1.png", 2.5), ("2.png", -3)]
    data = packed(*ages, header=("file", "age"), test=[("3.png", 7)])
    manifest, arrow = ingested(tmp_path, data)
    assert manifest.classes is None
    assert manifest.class_counts == {}
    assert {name: f.dtype for name, f in manifest.features.items()} == {"image": "uint8", "label": "float64"}
    assert open_table(arrow)["label"].to_pylist() == [1.0, 2.5, -3.0, 7.0]
    stats = manifest.columns["label"]
    assert (stats.count, stats.mean, stats.std) == (3, np.mean([1, 2.5, -3]), np.std([1, 2.5, -3]))
    assert [row["label"] for row in read_rows(arrow, manifest, "train", 2)] == [1.0, 2.5]
    assert preview_png(arrow, manifest, 1, 2).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("labels", "asked", "classes"),
    [
        ([1, 2, 10], None, ["1", "2", "10"]),
        ([1, 2, 10], "float", None),
        ([1.5, 2, 10], "class", ["2", "10", "1.5"]),
        (["1.0", "2.0", "nan"], None, ["1.0", "2.0", "nan"]),
        (["a", "2.5", "c"], None, ["2.5", "a", "c"]),
    ],
)
def test_options_say_what_labels_are_where_they_are_not_to_be_guessed(
    tmp_path: Path, labels: list[object], asked: str | None, classes: list[str] | None
) -> None:
    rows = [(f"{number}.png", label) for number, label in enumerate(labels)]
    options = {} if asked is None else {"label": asked}
    manifest, _ = ingested(tmp_path, packed(*rows, header=("file", "l")), format="image_csv", **options)
    assert manifest.classes == classes


def test_further_columns_are_kept_typed_and_told(tmp_path: Path) -> None:
    rows = [("0.png", 0.5, 1, "p1"), ("1.png", 1.5, 2, "p1"), ("2.png", 2.5, "", "p2")]
    data = packed(*rows, header=("path", "x", "y", "patient"), val=[("3.png", 3.5, 4, "p3")])
    manifest, arrow = ingested(tmp_path, data, label="float", label_column="x", format="image_csv")
    assert {name: feature.dtype for name, feature in manifest.features.items()} == {
        "image": "uint8",
        "label": "float64",
        "x": "float64",
        "y": "int64",
        "patient": "string",
    }
    table = open_table(arrow)
    assert table["label"].to_pylist() == table["x"].to_pylist() == [0.5, 1.5, 2.5, 3.5]
    assert table["y"].to_pylist() == [1, 2, None, 4]
    assert table["patient"].to_pylist() == ["p1", "p1", "p2", "p3"]
    assert manifest.columns["y"].missing == 1
    assert manifest.columns["patient"].values == [("p1", 2), ("p2", 1)]
    assert manifest.splits_unseen == {"val": {"y": [4], "patient": ["p3"]}}
    assert read_rows(arrow, manifest, "val", 1)[0].items() >= {"y": 4, "patient": "p3"}.items()


@pytest.mark.parametrize(
    ("header", "label", "kept"),
    [
        (("path", "id", "label"), "b", {"id"}),
        (("path", "id", "Class"), "b", {"id", "Class"}),
        (("path", "first", "second"), "a", {"first", "second"}),
        (("path", "", "label"), "b", set()),
    ],
)
def test_label_is_the_column_called_so_else_the_one_beside_the_path(
    tmp_path: Path, header: tuple[str, ...], label: str, kept: set[str]
) -> None:
    manifest, _ = ingested(tmp_path, packed(("0.png", "a", "b"), ("1.png", "a", "b"), header=header))
    assert manifest.classes == [label]
    assert set(manifest.features) == {"image", "label"} | kept


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no number": (
        packed(("0.png", 0.5), ("1.png", "cat"), header=("f", "l")),
        {"label": "float"},
        "bad_label",
    ),
    "infinity": (packed(("0.png", 0.5), ("1.png", "inf"), header=("f", "l")), {}, "bad_label"),
    "infinity beside": (
        packed(("0.png", "a", 0.5), ("1.png", "b", "inf"), header=("f", "label", "x")),
        {},
        "non_finite",
    ),
    "our own name": (packed(("0.png", "a", 0.5), header=("f", "label", "image")), {}, "duplicate_column"),
    "twice": (packed(("0.png", "a", 1, 2), header=("f", "label", "x", "x")), {}, "duplicate_column"),
    "no header": (packed(("1.png", "a", 1), header=("1.png", "b", "2")), {}, "bad_csv"),
    "another test": (
        zip_bytes(
            {
                "train.csv": csv_bytes([("f", "label", "x"), ("0.png", "a", 1)]),
                "test.csv": csv_bytes([("f", "label", "z"), ("0.png", "a", 1)]),
                "0.png": image_bytes(),
            }
        ),
        {},
        "column_mismatch",
    ),
    "another option": (packed(("0.png", 1), header=("f", "l")), {"label": "number"}, "bad_options"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_columns_that_cannot_be_kept_are_refused(tmp_path: Path, case: str) -> None:
    data, options, code = REFUSED[case]
    problem = refused(tmp_path, data, format="image_csv", **options)
    assert problem["code"] == code
    if code in ("bad_label", "non_finite"):
        assert [error["pointer"] for error in problem["errors"]] == ["/train.csv/rows/2"]
