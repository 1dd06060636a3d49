"""The ingest process as the worker runs it: real files in, Arrow and a manifest or a problem out."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from core.data.arrow import open_table
from core.data.manifest import Manifest
from core.data.preview import preview_png, read_rows
from tests import make_data

SHARED = Path(__file__).parents[3] / "shared" / "data"
MEMORY_BYTES = 2 * 1024**3


def run_ingest(
    source: Path,
    out_dir: Path,
    filename: str = "upload",
    memory_bytes: int = MEMORY_BYTES,
    cpu_seconds: int = 60,
    format: str = "auto",
    **options: Any,
) -> int:
    command = [sys.executable, "-m", "workers.ingest", str(source), str(out_dir), "--filename", filename]
    command += ["--format", format, "--options", msgspec.json.encode(options).decode()]
    command += ["--memory-bytes", str(memory_bytes), "--cpu-seconds", str(cpu_seconds)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert finished.returncode in (0, 1), finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished.returncode


def ingested(tmp_path: Path, data: bytes, filename: str = "upload", **options: Any) -> tuple[Manifest, Path]:
    source = tmp_path / "source"
    source.write_bytes(data)
    out_dir = tmp_path / "out"
    assert run_ingest(source, out_dir, filename, **options) == 0, (out_dir / "problem.json").read_text()
    assert sorted(path.name for path in out_dir.iterdir()) == ["data.arrow", "manifest.json"]
    return msgspec.json.decode(
        (out_dir / "manifest.json").read_bytes(), type=Manifest
    ), out_dir / "data.arrow"


def refused(tmp_path: Path, data: bytes, filename: str = "upload", **limits: Any) -> dict[str, Any]:
    source = tmp_path / "source"
    source.write_bytes(data)
    out_dir = tmp_path / "out"
    assert run_ingest(source, out_dir, filename, **limits) == 1
    assert [path.name for path in out_dir.iterdir()] == ["problem.json"]
    problem: dict[str, Any] = msgspec.json.decode((out_dir / "problem.json").read_bytes())
    assert set(problem) == {"code", "detail", "errors"}
    return problem


def test_class_folders_become_rows_grouped_by_split(tmp_path: Path) -> None:
    files = {
        f"pets/{split}/{name}": data
        for split in ("test", "train", "validation")
        for name, data in make_data.image_folder(["10", "9"], per_class=2).items()
    }
    manifest, arrow = ingested(tmp_path, make_data.zip_bytes({**files, "pets/README.md": b"hello"}))
    assert manifest.splits == {"train": 4, "val": 4, "test": 4}
    assert list(manifest.splits) == ["train", "val", "test"]
    assert manifest.classes == ["9", "10"]
    assert manifest.class_counts["test"] == [2, 2]
    table = open_table(arrow)
    assert table["file"].to_pylist()[0] == "pets/train/9/0.png"
    assert table["image"].to_pylist() == [files[name] for name in table["file"].to_pylist()]
    assert manifest.data_sha256 == hashlib.sha256(arrow.read_bytes()).hexdigest()
    assert manifest.data_bytes == arrow.stat().st_size


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
def test_a_tar_gives_the_same_dataset_as_a_zip(tmp_path: Path, packing: str) -> None:
    files = make_data.image_folder(["a", "b"], mode="RGB")
    (tmp_path / "zip").mkdir()
    (tmp_path / "tar").mkdir()
    from_zip, _ = ingested(tmp_path / "zip", make_data.zip_bytes(files))
    from_tar, _ = ingested(tmp_path / "tar", make_data.tar_bytes(files, packing))
    assert from_tar == from_zip


def test_channel_moments_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    train = make_data.image_folder(["a", "b"], mode="RGB")
    files = {f"train/{name}": data for name, data in train.items()}
    files["test/a/0.png"] = make_data.image_bytes(99, mode="RGB")
    manifest, _ = ingested(tmp_path, make_data.zip_bytes(files))
    pixels = np.stack([np.asarray(Image.open(tmp_file(tmp_path, data))) for data in train.values()]) / 255
    assert manifest.channel_mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert manifest.channel_std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def tmp_file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "picture"
    path.write_bytes(data)
    return path


def test_mixed_modes_are_rgb_and_mixed_sizes_open(tmp_path: Path) -> None:
    files = {
        "a/0.png": make_data.image_bytes(0, size=(8, 6)),
        "a/1.png": make_data.image_bytes(1, size=(8, 6)),
        "b/0.jpg": make_data.image_bytes(2, size=(8, 9), mode="RGB", format="JPEG"),
    }
    manifest, arrow = ingested(tmp_path, make_data.zip_bytes(files))
    assert manifest.image_mode == "RGB"
    assert manifest.features["image"].shape == [3, -1, 8]
    assert manifest.image_sizes == [(6, 8, 2), (9, 8, 1)]
    (row,) = read_rows(arrow, manifest, "train", 1)
    assert row["label"] == "a"
    expected = np.asarray(Image.open(tmp_file(tmp_path, files["a/0.png"])))
    assert np.array_equal(np.array(row["image"]), np.stack([expected] * 3))


def test_csvs_name_images_relative_to_themselves_the_root_or_by_base_name(tmp_path: Path) -> None:
    files = {
        "set/train.csv": make_data.csv_bytes(
            [
                ("id", "picture", "class"),
                (1, "img/0.png", "no"),
                (2, "other/1.png", "yes"),
                (3, "c:\\x\\2.png", "no"),
            ]
        ),
        "set/valid.csv": make_data.csv_bytes([("id", "picture", "class"), (9, "img/0.png", "yes")]),
        "set/img/0.png": make_data.image_bytes(0),
        "other/1.png": make_data.image_bytes(1),
        "other/2.png": make_data.image_bytes(2),
    }
    manifest, arrow = ingested(tmp_path, make_data.zip_bytes(files))
    assert manifest.format == "image_csv"
    assert manifest.splits == {"train": 3, "val": 1}
    assert manifest.classes == ["no", "yes"]
    table = open_table(arrow)
    assert table["file"].to_pylist() == ["set/img/0.png", "other/1.png", "other/2.png", "set/img/0.png"]
    assert table["label"].to_pylist() == [0, 1, 0, 1]


def test_a_csv_without_a_header_loses_no_row(tmp_path: Path) -> None:
    files = {name: make_data.image_bytes(position) for position, name in enumerate(("a.png", "b.png"))}
    files["labels.csv"] = make_data.csv_bytes([("a.png", 3), ("b.png", 20)], delimiter=";")
    manifest, _ = ingested(tmp_path, make_data.zip_bytes(files))
    assert manifest.splits == {"train": 2}
    assert manifest.classes == ["3", "20"]


def test_a_csv_keeps_types_missing_cells_and_statistics(tmp_path: Path) -> None:
    rows = [
        ("n", "x", "ok", "name", "day"),
        (1, 1.5, "True", "a", "2024-01-02"),
        (2, "", "false", " b ", "2024-01-03"),
    ]
    manifest, arrow = ingested(tmp_path, make_data.csv_bytes(rows, delimiter=";"), "things.csv")
    assert {name: feature.dtype for name, feature in manifest.features.items()} == {
        "n": "int64",
        "x": "float64",
        "ok": "bool",
        "name": "string",
        "day": "string",
    }
    assert open_table(arrow).to_pylist() == read_rows(arrow, manifest, "train", 10)
    assert read_rows(arrow, manifest, "train", 10)[1] == {
        "n": 2,
        "x": None,
        "ok": False,
        "name": "b",
        "day": "2024-01-03",
    }
    assert manifest.columns["n"].mean == 1.5
    assert manifest.columns["n"].std == 0.5
    assert manifest.columns["x"].missing == 1
    assert manifest.columns["name"].values == [("a", 1), ("b", 1)]


def test_a_type_is_agreed_over_all_blocks_and_splits(tmp_path: Path) -> None:
    # Long enough for several of the reader's blocks: only the last row of the test split has a fraction.
    train = make_data.csv_bytes([("x", "pad"), *((number, "p" * 60) for number in range(300_000))])
    test = make_data.csv_bytes([("pad", "x"), ("q", "0.5")])
    manifest, arrow = ingested(tmp_path, make_data.zip_bytes({"train.csv": train, "test.csv": test}))
    assert manifest.features["x"].dtype == "float64"
    assert manifest.splits == {"train": 300_000, "test": 1}
    table = open_table(arrow)
    assert table["x"].to_pylist() == [*map(float, range(300_000)), 0.5]
    assert manifest.columns["x"].mean == pytest.approx((300_000 - 1) / 2)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    columns = {
        "small": pa.array([1, None, 3], pa.int8()),
        "half": pa.array([1.5, 2.5, None], pa.float32()),
        "word": pa.array(["007", "8", ""]).dictionary_encode(),
        "day": pa.array([0, 1, 2], pa.date32()),
        "yes": [True, False, None],
    }
    manifest, arrow = ingested(tmp_path, make_data.parquet_bytes(columns), "x.parquet")
    assert [feature.dtype for feature in manifest.features.values()] == [
        "int64",
        "float64",
        "string",
        "string",
        "bool",
    ]
    assert open_table(arrow).to_pylist() == [
        {"small": 1, "half": 1.5, "word": "007", "day": "1970-01-01", "yes": True},
        {"small": None, "half": 2.5, "word": "8", "day": "1970-01-02", "yes": False},
        {"small": 3, "half": None, "word": None, "day": "1970-01-03", "yes": None},
    ]


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_keep_every_number(tmp_path: Path, order: Any) -> None:
    rng = np.random.default_rng(0)
    x, x_test = (
        rng.integers(0, 256, (30, 1, 5, 4), dtype=np.uint8),
        rng.integers(0, 256, (4, 1, 5, 4), dtype=np.uint8),
    )
    y, y_test = np.arange(30) % 3 * 10, np.array([[20], [0], [10], [0]])
    data = make_data.npz_bytes(x=np.asarray(x, order=order), y=y[:, None], x_test=x_test, y_test=y_test)
    manifest, arrow = ingested(tmp_path, data, "a.npz")
    assert manifest.splits == {"train": 30, "test": 4}
    assert manifest.classes == ["0", "10", "20"]
    assert manifest.features["x"].shape == [1, 5, 4]
    assert (manifest.columns["x"].mean, manifest.columns["x"].std) == pytest.approx((x.mean(), x.std()))
    table = open_table(arrow)
    assert table["y"].to_pylist() == [*(y // 10), 2, 0, 1, 0]
    stored = table["x"].combine_chunks().flatten().to_numpy().reshape(34, 1, 5, 4)
    assert np.array_equal(stored, np.concatenate([x, x_test]))
    (row,) = read_rows(arrow, manifest, "test", 1)
    assert row == {"x": x_test[0].tolist(), "y": "20"}


def test_float_targets_stay_numbers_and_string_targets_become_classes(tmp_path: Path) -> None:
    x = np.arange(6.0)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    regression, arrow = ingested(tmp_path / "1", make_data.npz_bytes(x=x, y=x.astype(">f4") / 2))
    assert regression.classes is None
    assert open_table(arrow).to_pylist()[3] == {"x": 3.0, "y": 1.5}
    labelled, arrow = ingested(tmp_path / "2", make_data.npz_bytes(x=x, y=np.array(["b", "a"] * 3)))
    assert labelled.classes == ["a", "b"]
    assert open_table(arrow)["y"].to_pylist() == [1, 0] * 3


def test_a_preview_is_a_grid_of_the_images(tmp_path: Path) -> None:
    white = make_data.encode(Image.new("L", (8, 8), 255))
    black = make_data.encode(Image.new("L", (8, 8), 0))
    manifest, arrow = ingested(tmp_path, make_data.zip_bytes({"a/0.png": black, "b/0.png": white}))
    grid = Image.open(tmp_file(tmp_path, preview_png(arrow, manifest, 1, 2)))
    left, right = (grid.getpixel((x, 50)) for x in (50, 150))
    assert (left, right) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("name", ["mnist-12k-csv-png.zip", "cifar10-12k-folders-jpeg.zip"])
def test_the_real_sets_are_read_whole(tmp_path: Path, name: str) -> None:
    source = SHARED / name
    if not source.exists():
        pytest.skip(f"{name} is not here")
    assert run_ingest(source, tmp_path / "out", name) == 0
    manifest = msgspec.json.decode((tmp_path / "out" / "manifest.json").read_bytes(), type=Manifest)
    assert manifest.splits == {"train": 10_000, "test": 2_000}
    assert manifest.class_counts == {"train": [1000] * 10, "test": [200] * 10}
    # Published: MNIST 0.1307 and 0.3081; CIFAR-10 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616.
    if name.startswith("mnist"):
        assert manifest.classes == [str(digit) for digit in range(10)]
        assert (manifest.channel_mean, manifest.channel_std) == (
            pytest.approx([0.1307], abs=0.005),
            pytest.approx([0.3081], abs=0.005),
        )
    else:
        assert manifest.features["image"].shape == [3, 32, 32]
        assert manifest.channel_mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.005)
        assert manifest.channel_std == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.005)


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """480 MB of rows through an address space that is smaller than they are."""
    source = tmp_path / "big.npz"
    np.savez(source, x=np.zeros((60_000, 1000), np.float64), y=np.arange(60_000) % 2)
    assert run_ingest(source, tmp_path / "out", memory_bytes=450 * 1024**2) == 0
    manifest = msgspec.json.decode((tmp_path / "out" / "manifest.json").read_bytes(), type=Manifest)
    assert manifest.data_bytes > 480_000_000
