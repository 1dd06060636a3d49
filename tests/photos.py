"""A dataset of photos that differ in size, as ingest leaves it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from core.data.manifest import Kind, Manifest
from core.data.targets import resolve_targets
from core.nets.transforms import Pipeline, resolve
from modelyard.specs import Feature, JobSpec, Split
from tests.make_data import encode
from workers.loaders import Source

EVAL = [{"type": "Resize", "size": [16, 16]}]


def photo(random: np.random.Generator, width: int, height: int) -> bytes:
    """Smooth, so that a JPEG of it is of a usual length."""
    small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encode(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def write_photos(
    folder: Path, rows: int, low: tuple[int, int] = (20, 24), high: tuple[int, int] = (40, 50)
) -> Manifest:
    """Three classes; (width, height) between `low` and `high`, a tenth of them for test."""
    random = np.random.default_rng(3)
    sizes = [tuple(random.integers(low, high).tolist()) for _ in range(rows)]
    images = [photo(random, *size) for size in sizes]
    columns = {"image": pa.array(images, pa.binary()), "label": pa.array([row % 3 for row in range(rows)])}
    table = pa.table(columns)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=64)
    counts = Counter((height, width) for width, height in sizes)
    return Manifest(
        format="image_folder",
        kind=Kind.IMAGES,
        splits={"train": rows - rows // 10, "test": rows // 10},
        features={"image": Feature("uint8", [3, -1, -1]), "label": Feature("int64", [])},
        data_sha256="e" * 64,
        data_bytes=1,
        classes=["a", "b", "c"],
        image_mode="RGB",
        image_sizes=[(height, width, count) for (height, width), count in counts.items()],
    )


def source_of_photos(
    folder: Path,
    manifest: Manifest,
    train: list[dict[str, Any]],
    evaluate: list[dict[str, Any]] = EVAL,
    **fields: Any,
) -> Source:
    spec = JobSpec(name="m", dataset="d", model={"type": "Linear"})
    targets = resolve_targets(spec, manifest, [], [])
    assert targets is not None
    pipelines = (Pipeline.from_spec(resolve(train)), Pipeline.from_spec(resolve(evaluate)))
    arrow, cache = folder / "data.arrow", folder / "cache"
    return Source(arrow, manifest, targets, Split(), [], *pipelines, cache, 2, **fields)
