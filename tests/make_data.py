"""Small uploads for tests: images, CSVs, tables and arrays, as bytes or packed into archives."""

import csv
import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def image_bytes(seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "L", format: str = "PNG") -> bytes:
    """A picture of random pixels; `size` is (width, height)."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return encode(Image.fromarray(pixels), format)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def csv_bytes(rows: Iterable[Sequence[object]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return out.getvalue()


def tar_bytes(files: Mapping[str, bytes], packing: str = "") -> bytes:
    """`packing`: "", "gz" or "zst"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if packing == "gz" else "w") as packed:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    if packing == "zst":
        return _zstd(out.getvalue())
    return out.getvalue()


def image_folder(classes: Sequence[str], per_class: int = 3, mode: str = "L") -> dict[str, bytes]:
    """`<class>/<n>.png`, every picture another."""
    return {
        f"{label}/{number}.png": image_bytes(position * per_class + number, mode=mode)
        for position, label in enumerate(classes)
        for number in range(per_class)
    }


def image_csv(
    rows: Mapping[str, Sequence[tuple[str, str]]], header: tuple[str, str] = ("file", "label")
) -> dict[str, bytes]:
    """One CSV a split and the images that it names: {"train": [("images/0.png", "cat"), …]}."""
    files = {f"{split}.csv": csv_bytes([header, *pairs]) for split, pairs in rows.items()}
    for pairs in rows.values():
        for path, _ in pairs:
            files.setdefault(path, image_bytes(len(files)))
    return files


def parquet_bytes(columns: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out)
    return out.getvalue()


def npz_bytes(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


#: The third byte of an IDX file by what it holds (LeCun, "The IDX file format").
IDX_TYPES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx_bytes(array: Any) -> bytes:
    array = np.asarray(array)
    header = struct.pack(f">HBB{array.ndim}I", 0, IDX_TYPES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist_files(
    train: int = 20, test: int = 10, *, side: int = 4, classes: int = 10, dots: bool = False, gz: bool = False
) -> dict[str, bytes]:
    """The four files as MNIST has them, of random pixels; labels go round the classes."""
    rng = np.random.default_rng(train)
    files = {}
    for split, rows in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (rows, side, side), dtype=np.uint8)
        labels = (np.arange(rows) % classes).astype("uint8")
        files |= {
            f"{split}-images-idx3-ubyte": idx_bytes(images),
            f"{split}-labels-idx1-ubyte": idx_bytes(labels),
        }
    if dots:
        files = {name.replace("-idx", ".idx"): data for name, data in files.items()}
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if gz else files


def jsonl_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    packed_bytes: bytes = sink.getvalue().to_pybytes()
    return packed_bytes
