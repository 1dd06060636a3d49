"""Text through the ingest process: which column is text, and which upload is taken for one."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.arrow import open_table
from core.data.manifest import Kind
from core.data.preview import read_rows
from tests.integration.test_ingest_process import ingested, refused
from tests.make_data import csv_bytes, jsonl_bytes, parquet_bytes, zip_bytes

REVIEWS = [
    ("A fine and moving film, truly", 1),
    ("Nothing in it is worth your time", 0),
    ('She said "go", and\nI went; straße, 東京', 1),
]


def as_json(rows: list[tuple[str, int]], **more: Any) -> bytes:
    return jsonl_bytes({"review": text, "stars": stars, **more} for text, stars in rows)


@pytest.mark.parametrize("filename", ["reviews.jsonl", "reviews"])
def test_json_lines_are_text_whatever_they_are_called(tmp_path: Path, filename: str) -> None:
    manifest, arrow = ingested(tmp_path, as_json(REVIEWS, id=None), filename)
    assert (manifest.format, manifest.kind) == ("text", Kind.TABLE)
    assert manifest.text_columns == ["review"]
    assert {name: feature.dtype for name, feature in manifest.features.items()} == {
        "review": "string",
        "stars": "int64",
        "id": "string",
    }
    assert manifest.columns["review"].values is None
    assert manifest.columns["stars"].values == [(0, 1), (1, 2)]
    assert manifest.columns["id"].missing == 3
    assert [(row["review"], row["stars"]) for row in read_rows(arrow, manifest, "train", 9)] == REVIEWS


def test_csv_with_a_column_of_sentences_called_text_is_text(tmp_path: Path) -> None:
    manifest, arrow = ingested(tmp_path, csv_bytes([("label", "text"), *((n, t) for t, n in REVIEWS)]))
    assert (manifest.format, manifest.text_columns) == ("text", ["text"])
    assert open_table(arrow)["text"].to_pylist() == [text for text, _ in REVIEWS]


@pytest.mark.parametrize(
    "rows",
    [
        [("text", "n"), ("red", 1), ("dark green", 2)],
        [("review", "n"), *REVIEWS],
        [("text", "n"), (1, 2), (3, 4)],
    ],
    ids=["names", "another name", "numbers"],
)
def test_other_csvs_stay_tables(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    manifest, _ = ingested(tmp_path, csv_bytes(rows))
    assert (manifest.format, manifest.text_columns) == ("table", [])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_archive_has_a_file_a_split_and_the_same_rows_from_every_kind_of_file(
    tmp_path: Path, suffix: str
) -> None:
    def file(rows: list[tuple[str, int]]) -> bytes:
        if suffix == "jsonl":
            return as_json(rows)
        if suffix == "parquet":
            return parquet_bytes({"review": [text for text, _ in rows], "stars": [n for _, n in rows]})
        return csv_bytes([("review", "stars"), *rows], delimiter="\t" if suffix == "tsv" else ",")

    files = {f"imdb/train.{suffix}": file(REVIEWS), f"imdb/test.{suffix}": file(REVIEWS[:1])}
    manifest, arrow = ingested(tmp_path, zip_bytes({**files, "imdb/README.md": b"hi"}), format="text")
    assert manifest.splits == {"train": 3, "test": 1}
    assert manifest.text_columns == ["review"]
    assert open_table(arrow)["review"].to_pylist() == [text for text, _ in REVIEWS + REVIEWS[:1]]


def test_options_name_the_column_or_several(tmp_path: Path) -> None:
    rows = csv_bytes([("text", "title", "n"), ("a b c d", "x", 1), ("e f g h", "y", 2)])
    for number, (asked, columns) in enumerate(
        [(None, ["text"]), ("title", ["title"]), (["title", "text"], ["title", "text"])]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        manifest, _ = ingested(folder, rows, format="text", **({"text": asked} if asked else {}))
        assert manifest.text_columns == columns


def test_without_a_known_name_the_column_with_the_longest_sentences_is_text(tmp_path: Path) -> None:
    rows = [
        {"short": "one two three", "long": "four five six seven eight nine", "url": "x" * 200, "n": 1},
        {"short": "one two three", "long": "four five six seven eight nine", "url": "y" * 200, "n": 2},
    ]
    manifest, _ = ingested(tmp_path, jsonl_bytes(rows))
    assert manifest.text_columns == ["long"]


def test_numbers_in_a_named_text_column_of_a_csv_stay_as_written(tmp_path: Path) -> None:
    rows = csv_bytes([("code", "n"), ("007", 1), ("1e5", 2)])
    _, arrow = ingested(tmp_path, rows, format="text", text="code")
    assert open_table(arrow)["code"].to_pylist() == ["007", "1e5"]


def test_keys_that_rows_lack_are_missing_and_whole_numbers_widen(tmp_path: Path) -> None:
    rows = jsonl_bytes([{"text": "a b c", "n": 1}, {"text": "d e f", "late": True}, {"n": 2.5}])
    manifest, arrow = ingested(tmp_path, b"\xef\xbb\xbf\n" + rows + b"  \n")
    assert {name: feature.dtype for name, feature in manifest.features.items()} == {
        "text": "string",
        "n": "float64",
        "late": "bool",
    }
    assert open_table(arrow).to_pylist() == [
        {"text": "a b c", "n": 1.0, "late": None},
        {"text": "d e f", "n": None, "late": True},
        {"text": None, "n": 2.5, "late": None},
    ]


def test_whole_numbers_beyond_64_bits_are_floats(tmp_path: Path) -> None:
    rows = jsonl_bytes([{"text": "a b c", "n": 2**70, "m": 2**53 + 1}, {"text": "d e f", "n": 1, "m": 0.5}])
    manifest, arrow = ingested(tmp_path, rows)
    assert manifest.features["n"].dtype == "float64"
    assert open_table(arrow)["n"].to_pylist() == [2.0**70, 1.0]
    assert open_table(arrow)["m"].to_pylist() == [float(2**53 + 1), 0.5]


def test_what_other_splits_lack_or_have_besides_stands_in_the_manifest(tmp_path: Path) -> None:
    header = ("text", "label", "x", "n")
    files = {
        "train.csv": csv_bytes([header, ("a b c", "yes", 1, 0.5), ("d e f", "no", 2, 1.5)]),
        "val.csv": csv_bytes([header, ("a b c", "yes", 1, 9.5)]),
        "test.csv": csv_bytes([header, ("g h i", "maybe", 3, 2.5), ("k l m", "", 1, 3.5)]),
    }
    manifest, _ = ingested(tmp_path, zip_bytes(files))
    assert manifest.splits_missing == {"test": {"label": 1}}
    assert manifest.splits_unseen == {"test": {"label": ["maybe"], "x": [3]}}


BAD_LINES = {
    "not JSON": (b'{"text": "a b c"}\n{"text": \n', "bad_jsonl"),
    "a list": (b'{"text": "a b c"}\n["a"]\n', "bad_jsonl"),
    "nested": (b'{"text": "a b c"}\n{"text": {"a": 1}}\n', "bad_jsonl"),
    "infinite": (b'{"text": "a b c", "n": 1}\n{"text": "a b c", "n": 1e999}\n', "bad_jsonl"),
    "NaN": (b'{"text": "a b c", "n": 1}\n{"text": "a b c", "n": NaN}\n', "bad_jsonl"),
    "lone surrogate": (b'{"text": "a b c"}\n{"text": "\\ud800"}\n', "bad_jsonl"),
    "no UTF-8": (b'{"text": "a b c"}\n{"text": "\xff"}\n', "bad_jsonl"),
    "deep": (b'{"text": "a b c"}\n{"text": ' + b"[" * 100_000 + b"\n", "bad_jsonl"),
    "endless number": (b'{"text": "a b c"}\n{"text": "a", "n": ' + b"9" * 400 + b"}\n", "bad_jsonl"),
    "two kinds": (b'{"text": "a b c", "n": 1}\n{"text": "d e f", "n": "one"}\n', "column_type"),
    "long line": (b'{"text": "' + b"a " * 5_000_000 + b'"}\n', "bad_jsonl"),
    "long cell": (b'{"text": "' + b"a " * 600_000 + b'"}\n', "too_large"),
    "no text": (b'{"a": 1}\n{"a": 2}\n', "no_text_column"),
    "a key without a name": (b'{"text": "a b c", "": 1}\n', "unnamed_column"),
}


@pytest.mark.parametrize("case", list(BAD_LINES))
def test_lines_that_are_no_flat_objects_are_refused(tmp_path: Path, case: str) -> None:
    data, code = BAD_LINES[case]
    problem = refused(tmp_path, data, "rows.jsonl")
    assert problem["code"] == code
    if code in ("bad_jsonl", "column_type") and case != "long line":
        assert [error["pointer"] for error in problem["errors"]] == ["/rows.jsonl/rows/2"]


def test_ever_new_keys_are_refused_while_they_are_few(tmp_path: Path) -> None:
    rows = b"".join(json.dumps({f"k{row}": 1}).encode() + b"\n" for row in range(200_000))
    assert refused(tmp_path, rows, "rows.jsonl")["code"] == "too_large"


def test_text_column_that_is_not_there_or_no_string_is_refused(tmp_path: Path) -> None:
    for folder, asked, code in (("1", "nope", "unknown_column"), ("2", "stars", "column_type")):
        (tmp_path / folder).mkdir()
        problem = refused(tmp_path / folder, as_json(REVIEWS), "r.jsonl", format="text", text=asked)
        assert problem["code"] == code
        assert asked in problem["detail"]
