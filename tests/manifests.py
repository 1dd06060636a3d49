"""Small manifests, as ingest would write them, for tests that need no bytes."""

from core.data.manifest import ColumnStats, Kind, Manifest
from modelyard.specs import Feature

DIGITS = [str(digit) for digit in range(10)]


def images(
    *,
    channels: int = 1,
    sizes: list[tuple[int, int, int]] | None = None,
    classes: list[str] | None = None,
    splits: dict[str, int] | None = None,
    class_counts: dict[str, list[int]] | None = None,
) -> Manifest:
    """28 x 28 grey images of ten digits unless told otherwise; sizes are (height, width, count)."""
    sizes = sizes or [(28, 28, 1200)]
    height, width = (sizes[0][0], sizes[0][1]) if len(sizes) == 1 else (-1, -1)
    return Manifest(
        format="image_folder",
        kind=Kind.IMAGES,
        splits=splits or {"train": 1000, "test": 200},
        features={"image": Feature("uint8", [channels, height, width]), "label": Feature("int64", [])},
        data_sha256="0" * 64,
        data_bytes=1,
        classes=classes or DIGITS,
        class_counts=class_counts or {},
        image_mode="L" if channels == 1 else "RGB",
        image_sizes=sizes,
    )


def table(rows: int = 150) -> Manifest:
    """Three numbers, one of them missing twice, one string of two values, and a float target."""
    return Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": rows},
        features={
            "age": Feature("float64", []),
            "height": Feature("float64", []),
            "city": Feature("string", []),
            "target": Feature("float64", []),
        },
        data_sha256="1" * 64,
        data_bytes=1,
        columns={
            "age": ColumnStats(count=rows, missing=2, mean=40.0, std=10.0),
            "height": ColumnStats(count=rows, mean=170.0, std=9.0),
            "city": ColumnStats(count=rows, values=[("bern", 70), ("rome", rows - 70)]),
            "target": ColumnStats(count=rows, mean=0.0, std=1.0),
        },
    )


def arrays(
    shape: list[int],
    dtype: str = "float32",
    *,
    rows: int = 100,
    classes: list[str] | None = None,
    target_shape: list[int] | None = None,
) -> Manifest:
    """x of a shape a row; y holds class indices where classes are given, else floats."""
    return Manifest(
        format="arrays",
        kind=Kind.ARRAYS,
        splits={"train": rows},
        features={
            "x": Feature(dtype, shape),
            "y": Feature("int64" if classes else "float32", target_shape or []),
        },
        data_sha256="2" * 64,
        data_bytes=1,
        classes=classes,
    )
