"""What ingest refuses, as the worker runs it: the code, the place that it names, nothing left behind."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from core.errors import Invalid
from tests import make_data
from tests.integration.test_ingest_process import refused
from workers.ingest.run import ingest

FOLDERS = make_data.image_folder(["a", "b"])


@pytest.mark.parametrize("name", ["zip", "tar", "tar.gz", "tar.zst"])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str) -> None:
    if name == "zip":
        data = make_data.zip_bytes(FOLDERS)
    else:
        data = make_data.tar_bytes(FOLDERS, name.removeprefix("tar").removeprefix("."))
    assert refused(tmp_path, data[: len(data) // 2], name)["code"] == "truncated_archive"


def test_a_tar_cut_between_members_is_refused(tmp_path: Path) -> None:
    data = make_data.tar_bytes(FOLDERS)
    assert refused(tmp_path, data[:1024])["code"] == "truncated_archive"


def test_damage_inside_an_archive_names_the_member(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a/0.png", FOLDERS["a/0.png"])
    data = bytearray(out.getvalue())
    data[60] ^= 0xFF
    problem = refused(tmp_path, bytes(data))
    assert problem["code"] == "corrupt_archive"
    assert problem["errors"][0]["pointer"] == "/a~10.png"


def test_corrupt_images_are_named_all_at_once(tmp_path: Path) -> None:
    files = dict(FOLDERS)
    for name in ("a/1.png", "b/0.png"):
        files[name] = files[name][:40]
    problem = refused(tmp_path, make_data.zip_bytes(files))
    assert problem["code"] == "corrupt_image"
    assert [error["pointer"] for error in problem["errors"]] == ["/a~11.png", "/b~10.png"]
    assert "a/1.png" in problem["detail"]


def test_an_image_with_alpha_is_named(tmp_path: Path) -> None:
    files = {**FOLDERS, "a/9.png": make_data.image_bytes(mode="RGBA")}
    problem = refused(tmp_path, make_data.zip_bytes(files))
    assert problem["code"] == "unsupported_image"
    assert "a/9.png" in problem["detail"]
    assert "alpha" in problem["detail"]


def test_a_csv_naming_missing_files_points_at_the_rows(tmp_path: Path) -> None:
    files = make_data.image_csv({"train": [(f"{number}.png", "x") for number in range(30)]})
    del files["3.png"], files["16.png"]
    problem = refused(tmp_path, make_data.zip_bytes(files))
    assert problem["code"] == "missing_file"
    assert [error["pointer"] for error in problem["errors"]] == ["/train.csv/rows/4", "/train.csv/rows/17"]
    assert "'16.png'" in problem["errors"][1]["message"]


def test_at_most_twenty_errors_are_told(tmp_path: Path) -> None:
    files = {
        "train.csv": make_data.csv_bytes([("f", "l"), *((f"{n}.png", "x") for n in range(500))]),
        "x.png": b"x",
    }
    assert len(refused(tmp_path, make_data.zip_bytes(files))["errors"]) == 20


def test_a_label_that_only_the_test_split_has_is_listed(tmp_path: Path) -> None:
    files = make_data.image_csv({"train": [("0.png", "cat")], "test": [("1.png", "cat"), ("2.png", "emu")]})
    problem = refused(tmp_path, make_data.zip_bytes(files))
    assert problem["code"] == "unseen_label"
    assert "'emu'" in problem["detail"]


def test_an_image_beside_the_class_folders_is_refused(tmp_path: Path) -> None:
    problem = refused(tmp_path, make_data.zip_bytes({**FOLDERS, "stray.png": make_data.image_bytes()}))
    assert problem["code"] == "no_class_folder"
    assert "stray.png" in problem["detail"]


def _refused_here(tmp_path: Path, data: bytes, filename: str) -> Invalid:
    """In this process, where the many small cases need no interpreter of their own."""
    source, scratch, out = tmp_path / "source", tmp_path / "scratch", tmp_path / "data.arrow"
    source.write_bytes(data)
    scratch.mkdir()
    with pytest.raises(Invalid) as caught:
        ingest(source, out, scratch, "auto", "{}", filename)
    assert not out.exists()
    return caught.value


TABLES = {
    "twice": (b"a,b,a\n1,2,3\n", "duplicate_column", "'a'"),
    "unnamed": (b",a\n0,1\n", "unnamed_column", "column 1"),
    "no header": (b"1,2\n3,4\n", "no_header", "all numbers"),
    "no rows": (b"a,b\n", "empty_dataset", "rows"),
    "latin-1": ("a,b\n1,é\n".encode("latin-1"), "bad_encoding", "UTF-8"),
    "infinity": (b"a,b\n1,2\ninf,3\n", "non_finite", "/t.csv/rows/2"),
    "open quote": (b'a,b\n1,"2\n3,4\n', "bad_csv", "t.csv"),
    "long cell": (b"a,b\n1," + b"x" * (1024**2 + 1) + b"\n", "too_large", "'b'"),
    "empty file": (b"", "empty_upload", "empty"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_bad_table_is_refused_with_the_place(tmp_path: Path, what: str) -> None:
    data, code, words = TABLES[what]
    problem = _refused_here(tmp_path, data, "t.csv")
    assert problem.code == code
    assert words in problem.detail


def test_ragged_rows_of_a_csv_are_pointed_at(tmp_path: Path) -> None:
    rows = [("a", "b"), (1, 2), (3,), (4, 5), (6, 7, 8)]
    problem = refused(tmp_path, make_data.csv_bytes(rows), "t.csv")
    assert problem["code"] == "bad_csv"
    assert [error["pointer"] for error in problem["errors"]] == ["/t.csv/rows/2", "/t.csv/rows/4"]


def test_no_more_than_twenty_ragged_rows_are_told(tmp_path: Path) -> None:
    problem = refused(tmp_path, b"a,b\n" + b"1\n" * 100_000, "t.csv")
    assert problem["code"] == "bad_csv"
    assert len(problem["errors"]) == 20


def test_tables_of_one_dataset_have_the_same_columns(tmp_path: Path) -> None:
    problem = refused(tmp_path, make_data.zip_bytes({"train.csv": b"a,b\n1,2\n", "test.csv": b"a\n1\n"}))
    assert problem["code"] == "column_mismatch"
    assert "'b'" in problem["detail"]


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    data = make_data.parquet_bytes({"a": [1, 2, 3]})
    assert refused(tmp_path, data[: len(data) // 2])["code"] == "bad_parquet"


ARRAYS = {
    "pickle": ({"x": np.array([{}, []], dtype=object), "y": np.arange(2)}, "pickle_refused"),
    "lengths": ({"x": np.zeros((3, 2)), "y": np.arange(2)}, "length_mismatch"),
    "no y": ({"x": np.zeros((3, 2))}, "wrong_arrays"),
    "unknown": ({"x": np.zeros(2), "y": np.zeros(2), "z": np.zeros(2)}, "wrong_arrays"),
    "nan": ({"x": np.array([[0.0], [np.nan]]), "y": np.arange(2)}, "non_finite"),
    "complex": ({"x": np.zeros(2, complex), "y": np.arange(2)}, "unsupported_dtype"),
    "shapes": (
        {"x": np.zeros((2, 3)), "y": np.arange(2), "x_test": np.zeros((2, 4)), "y_test": np.arange(2)},
        "shape_mismatch",
    ),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_bad_arrays_are_refused(tmp_path: Path, what: str) -> None:
    arrays, code = ARRAYS[what]
    assert _refused_here(tmp_path, make_data.npz_bytes(**arrays), "a.npz").code == code


def test_an_array_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 3)}
    )
    data = make_data.zip_bytes({"x.npy": header.getvalue(), "y.npy": header.getvalue()})
    assert refused(tmp_path, data)["code"] == "bad_array"


def test_what_is_no_dataset_is_named(tmp_path: Path) -> None:
    problem = refused(tmp_path, zlib.compress(bytes(1000)) + b"\0", "model.bin")
    assert problem["code"] == "unknown_format"
    assert ".bin" in problem["detail"]


def test_too_little_memory_is_told_as_such(tmp_path: Path) -> None:
    """An array in Fortran order has to be read whole."""
    out = io.BytesIO()
    np.savez(out, x=np.zeros((25_000, 1000), order="F"), y=np.arange(25_000) % 2)
    assert refused(tmp_path, out.getvalue(), memory_bytes=450 * 1024**2)["code"] == "out_of_memory"


def test_too_little_cpu_time_is_told_as_such(tmp_path: Path) -> None:
    data = b"a,b\n" + b"1.5,some words\n" * 6_000_000
    assert refused(tmp_path, data, "t.csv", cpu_seconds=1)["code"] == "too_slow"
