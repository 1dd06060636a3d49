"""Uploaded files as rows: what a cell means, which row is at fault, and where reading goes on."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.data.instances import BadInstance
from core.data.prepare import FittedColumn
from core.errors import Invalid
from tests.make_data import csv_bytes, jsonl_bytes, parquet_bytes
from workers.predictions.uploads import open_upload

COLUMNS = [
    FittedColumn("size", "number", []),
    FittedColumn("old", "bool", []),
    FittedColumn("word", "string", []),
]
ROWS: list[dict[str, Any]] = [
    {"size": float(row), "old": row % 2 == 0, "word": f"w{row}", "more": row} for row in range(600)
]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "rows"
    path.write_bytes(data)
    return path


def all_rows(path: Path, start: int = 0, size: int = 7) -> list[Any]:
    chunks = list(open_upload(path, COLUMNS).chunks(start, size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    return [row for chunk in chunks for row in chunk]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return csv_bytes([list(rows[0]), *(row.values() for row in rows)])


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    return parquet_bytes({name: [row[name] for row in rows] for name in rows[0]})


@pytest.mark.parametrize("write", [as_csv, jsonl_bytes, as_parquet], ids=["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("start", [0, 1, 255, 256, 300, 600])
def test_rows_come_in_order_from_any_place_without_what_the_model_does_not_take(
    tmp_path: Path, write: Any, start: int
) -> None:
    path = written(tmp_path, write(ROWS))
    assert open_upload(path, COLUMNS).count == 600
    expected = [{name: row[name] for name in ("size", "old", "word")} for row in ROWS]
    assert all_rows(path, start) == expected[start:]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("1,true, x ", {"size": 1.0, "old": True, "word": "x"}),
        ("1e3,TRUE,x", {"size": 1000.0, "old": True, "word": "x"}),
        (",,", {"size": None, "old": None, "word": None}),
        ("nan,false,", {"size": None, "old": False, "word": None}),
        ('2,false,"a, b\nc"', {"size": 2.0, "old": False, "word": "a, b\nc"}),
    ],
)
def test_a_cell_means_what_it_means_in_a_dataset(tmp_path: Path, line: str, row: dict[str, Any]) -> None:
    assert all_rows(written(tmp_path, f"size,old,word\n{line}\n".encode())) == [row]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"1,true", "bad_csv"),
        (b"1,true,x,y", "bad_csv"),
        (b"1_000,true,x", "bad_instance"),
        (b"many,true,x", "bad_instance"),
        (b"1,yes,x", "bad_instance"),
        (b"1,true,\xff", "bad_encoding"),
    ],
)
def test_a_broken_line_is_one_bad_row(tmp_path: Path, line: bytes, code: str) -> None:
    first, bad, last = all_rows(written(tmp_path, b"size,old,word\n1,true,x\n" + line + b"\n2,true,y\n"))
    assert (first["size"], last["size"]) == (1.0, 2.0)
    assert isinstance(bad, BadInstance)
    assert bad.code == code


def test_a_broken_object_is_one_bad_row_and_a_blank_line_is_none(tmp_path: Path) -> None:
    data = b'{"size": 1}\n\n{"size": \n{"size": 3, "old": null}\n'
    first, bad, last = all_rows(written(tmp_path, data))
    assert first == {"size": 1, "old": None, "word": None}
    assert isinstance(bad, BadInstance)
    assert bad.code == "bad_jsonl"
    assert last["size"] == 3


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'size,old,word\n1,true,"x\n2,true,y\n', "bad_csv"),
        (b"size,old\n1,true\n", "missing_columns"),
        (b"", "missing_columns"),
        (b"size,old,word\n" + b"1" * 9_000_000, "too_large"),
        (b"PAR1", "bad_parquet"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "bad_parquet"),
    ],
    ids=["open quote", "column", "empty", "long line", "cut parquet", "no parquet"],
)
def test_a_file_that_leaves_open_what_a_row_is_is_refused_whole(
    tmp_path: Path, data: bytes, code: str
) -> None:
    with pytest.raises(Invalid) as caught:
        all_rows(written(tmp_path, data))
    assert caught.value.code == code


def test_parquet_types_are_read_as_a_dataset_stores_them(tmp_path: Path) -> None:
    columns = {
        "size": pa.array([1, None], pa.int32()),
        "old": pa.array([True, None]),
        "word": pa.array(["a ", ""]).dictionary_encode(),
        "list": pa.array([[1], [2]]),  # the model doesn't take it
    }
    assert all_rows(written(tmp_path, parquet_bytes(columns))) == [
        {"size": 1, "old": True, "word": "a"},
        {"size": None, "old": None, "word": None},
    ]
