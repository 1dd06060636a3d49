"""Checks every image by decoding it once and writes them as they came: shared by both image formats."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.data.images import MAX_IMAGE_BYTES, load_image
from core.data.manifest import SPLIT_ORDER, Kind, Manifest
from core.errors import Invalid
from modelyard.specs import Feature
from workers.ingest.archives import Tree
from workers.ingest.columns import dtype_name, missing_beside, unseen_beside
from workers.ingest.image_columns import Row, columns_of
from workers.ingest.problems import Problems
from workers.ingest.writer import BATCH_BYTES, MAX_BATCH_ROWS, ArrowWriter

_MAX_LISTED_SIZES = 200
_MAX_THREADS = 8
# Mean size of a file under which threads did not gain when measured.
_THREADED_IMAGE_BYTES = 32 * 1024
# Images a thread takes at once: enough to hide the hand-over, few enough to bound what waits in memory.
_CHUNK_ROWS = 64
_CHUNK_BYTES = 8 * 1024 * 1024

# C channels (3 until all are known to be grey), L levels of a pixel (256); histograms are [C, L]
_LEVELS_L = np.arange(256, dtype=np.float64) / 255


class _Checked(NamedTuple):
    row: Row
    data: bytes
    height: int
    width: int
    is_grey: bool
    histogram: NDArray[np.int64] | None
    problem: Invalid | None


@dataclass
class _Seen:
    """What is known of the images so far. Grey images count as three equal channels, since whether the
    dataset is grey is only known after the last one."""

    all_grey: bool = True
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))


def write_images(
    tree: Tree,
    rows: Mapping[str, Sequence[Row]],
    format: str,
    out: Path,
    others: Sequence[str] = (),
    label: Literal["float", "class"] | None = "class",
) -> Manifest:
    """Rows are written in the order given, split by split; `others` and `label` as `columns_of` takes them.
    Raises `Invalid` with up to `problems.MAX_ERRORS` images that do not decode."""
    splits = {split: rows[split] for split in SPLIT_ORDER if rows.get(split)}
    columns = columns_of(splits, others, label)
    beside = columns.batches["train"].schema
    schema = pa.schema(
        [("image", pa.binary()), beside.field("label"), ("file", pa.string()), *list(beside)[1:]]
    )
    problems, seen = Problems(), _Seen()
    with ArrowWriter(out, schema) as writer:
        for split, split_rows in splits.items():
            _write_split(tree, split_rows, columns.batches[split], split == "train", writer, seen, problems)
        problems.raise_any()
    mean_C, std_C = _channel_moments(seen)
    return Manifest(
        format=format,
        kind=Kind.IMAGES,
        splits={split: len(rows) for split, rows in splits.items()},
        features={
            "image": Feature("uint8", _shape(seen)),
            **{field.name: Feature(dtype_name(field.type), []) for field in beside},
        },
        data_sha256=writer.sha256,
        data_bytes=writer.size_bytes,
        classes=columns.classes,
        class_counts=columns.class_counts,
        image_mode="L" if seen.all_grey else "RGB",
        image_sizes=[(*size, count) for size, count in seen.sizes.most_common(_MAX_LISTED_SIZES)],
        channel_mean=mean_C,
        channel_std=std_C,
        columns=columns.stats["train"],
        splits_missing=missing_beside(columns.stats),
        splits_unseen=unseen_beside(columns.stats),
    )


def _write_split(
    tree: Tree,
    rows: Sequence[Row],
    columns: pa.RecordBatch,
    is_train: bool,
    writer: ArrowWriter,
    seen: _Seen,
    problems: Problems,
) -> None:
    """`columns` has a row an image; after a problem nothing more is written."""
    images: list[_Checked] = []
    gathered_bytes = num_written = 0
    for checked in _check_all(tree, rows, is_train):
        if checked.problem is not None:
            message = f"{checked.row.file}: {checked.problem.detail}"
            problems.add(checked.row.pointer, checked.problem.code, message)
        if problems.errors:
            continue
        seen.all_grey &= checked.is_grey
        seen.sizes[checked.height, checked.width] += 1
        if checked.histogram is not None:
            seen.histogram += checked.histogram  # one grey channel adds to all three
        images.append(checked)
        gathered_bytes += len(checked.data)
        if gathered_bytes >= BATCH_BYTES or len(images) >= MAX_BATCH_ROWS:
            writer.write(_batch(images, columns.slice(num_written, len(images)), writer.schema))
            num_written += len(images)
            images, gathered_bytes = [], 0
    if images and not problems.errors:
        writer.write(_batch(images, columns.slice(num_written, len(images)), writer.schema))


def _batch(images: Sequence[_Checked], columns: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`columns` are those of the same rows."""
    known = {
        "image": pa.array([checked.data for checked in images], pa.binary()),
        "file": pa.array([checked.row.file for checked in images], pa.string()),
    }
    arrays = [known[name] if name in known else columns.column(name) for name in schema.names]
    return pa.record_batch(arrays, schema=schema)


def _check_all(tree: Tree, rows: Sequence[Row], with_histogram: bool) -> Iterator[_Checked]:
    """In order. Pillow's decoders let go of the interpreter's lock, so large images are decoded on all
    cores; small ones spend their time in Python, where threads only get in each other's way."""
    packed_bytes = sum(tree.sizes[row.file] for row in rows)
    if packed_bytes < _THREADED_IMAGE_BYTES * len(rows):
        yield from (_check(tree, row, with_histogram) for row in rows)
        return
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[list[_Checked]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for chunk in _chunks(tree, rows):
                waiting.append(pool.submit(_check_chunk, tree, chunk, with_histogram))
                if len(waiting) > 2 * num_threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _chunks(tree: Tree, rows: Sequence[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += tree.sizes[row.file]
        if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _check_chunk(tree: Tree, rows: Sequence[Row], with_histogram: bool) -> list[_Checked]:
    return [_check(tree, row, with_histogram) for row in rows]


def _check(tree: Tree, row: Row, with_histogram: bool) -> _Checked:
    try:
        if tree.sizes[row.file] > MAX_IMAGE_BYTES:
            raise Invalid(f"expected at most {MAX_IMAGE_BYTES} bytes a file", code="image_too_large")
        data = tree.read(row.file)
        image = load_image(data)
    except Invalid as problem:
        return _Checked(row, b"", 0, 0, True, None, problem)
    histogram = None
    if with_histogram:
        histogram = np.array(image.histogram(), np.int64).reshape(-1, 256)
    return _Checked(row, data, image.height, image.width, image.mode == "L", histogram, None)


def _channel_moments(seen: _Seen) -> tuple[list[float], list[float]]:
    """Exact up to the last rounding: the counts of the 256 levels are integers."""
    channels = 1 if seen.all_grey else 3
    share_CL = seen.histogram[:channels] / seen.histogram[:channels].sum(axis=1, keepdims=True)
    mean_C = share_CL @ _LEVELS_L
    variance_C = (share_CL * (_LEVELS_L - mean_C[:, None]) ** 2).sum(axis=1)
    return mean_C.tolist(), np.sqrt(variance_C).tolist()


def _shape(seen: _Seen) -> list[int]:
    heights = {height for height, _ in seen.sizes}
    widths = {width for _, width in seen.sizes}
    sides = [sides.pop() if len(sides) == 1 else -1 for sides in (heights, widths)]
    return [1 if seen.all_grey else 3, *sides]
