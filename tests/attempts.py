"""The child's own code, driven in process: small data as ingest writes them, and an attempt at them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from core.data.manifest import ColumnStats, Kind, Manifest
from core.nets.plan import Source, check
from modelyard.specs import Feature
from tests.fakes import FakeLink
from workers.attempt import Attempt
from workers.messages import Order

SEED = 1729
#: So many rows train, in batches of `BATCH`; `VALIDATION` more are the split `val`.
ROWS, BATCH, VALIDATION = 24, 8, 4

Component = dict[str, Any]
#: A manifest, and the rows of all its splits in their order.
Data = Callable[[], tuple[Manifest, pa.Table]]

_DTYPES = {"double": "float64", "int64": "int64", "string": "string", "bool": "bool"}


def attempt_of(
    spec: Component,
    manifest: Manifest,
    rows: pa.Table,
    folder: Path,
    uploads: Mapping[str, Path] | None = None,
) -> Attempt:
    """The spec, planned as the service does and ordered as the supervisor does. What it leaves out of the
    trainer is one epoch in order, in batches of `BATCH`, deterministic on the CPU. `uploads` are files by
    their id."""
    trainer_spec = {
        "epochs": 1,
        "batch_size": BATCH,
        "shuffle": False,
        "seed": SEED,
        "deterministic": True,
        "device": "cpu",
    } | spec.get("trainer", {})
    whole = {"name": "a", "dataset": "d"} | spec | {"trainer": trainer_spec}
    checked = check(whole, Source("d@1", manifest))
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    order = first_order(checked.spec, folder, uploads)
    return Attempt(order, FakeLink())


def first_order(spec: Component, folder: Path, uploads: dict[str, Path] | None = None) -> Order:
    """A first attempt on the CPU at the dataset in `folder`."""
    return Order(
        job="job_1",
        fence=1,
        spec=spec,
        arrow=str(folder / "data.arrow"),
        manifest=str(folder / "manifest.json"),
        scratch=str(folder / "attempt"),
        cache=str(folder / "cache"),
        threads=1,
        use_gpu=False,
        resolved={},
        resume=None,
        uploads={named: str(path) for named, path in (uploads or {}).items()},
    )


def c(kind: str, **keywords: Any) -> Component:
    return {"type": kind} | keywords


def seq(*layers: Component) -> Component:
    return c("Sequential", layers=list(layers))


#: A training on small grey images with all that has a state of its own, or of its rank's.
WHOLE: Component = {
    "model": seq(
        c("Conv2d", out_channels=4, kernel_size=3),
        c("BatchNorm2d"),
        c("ReLU"),
        c("Dropout", p=0.25),
        c("Flatten"),
        c("Linear", out_features=3),
    ),
    "transforms": {"train": [c("RandomHorizontalFlip"), c("RandomRotation", degrees=20)]},
    "optimizer": c("AdamW", lr=0.01),
    "scheduler": c("OneCycleLR", max_lr=0.02, interval="step"),
    "trainer": {
        "epochs": 3,
        "shuffle": True,
        "accumulate": 2,
        "clip_grad_norm": 0.5,
        "ema": {"decay": 0.9},
        "early_stopping": {"patience": 3},
    },
}


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def arrays(
    shape: list[int],
    *,
    classes: int | None,
    dtype: str = "float32",
    width: int = 1,
    train: int = ROWS,
    validation: int = VALIDATION,
) -> Data:
    """x of a shape a row; y holds classes, or one number, or `width` yes or no."""

    def made() -> tuple[Manifest, pa.Table]:
        rng = generator()
        n = train + validation
        x = rng.integers(0, 256, (n, *shape)) if dtype == "uint8" else rng.standard_normal((n, *shape))
        flat = pa.array(x.astype(dtype).reshape(-1))
        columns: dict[str, Any] = {"x": pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))}
        if classes is None and width == 1:
            columns["y"] = pa.array(rng.standard_normal(n).astype("float32"))
        elif classes is None:
            values = (rng.random((n, width)) < 0.5).astype("float32")
            columns["y"] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
        else:
            columns["y"] = pa.array(rng.integers(0, classes, n))
        y_dtype = "float32" if classes is None else "int64"
        zeros_and_ones: list[tuple[Any, int]] | None = [(0.0, 1), (1.0, 1)] if width > 1 else None
        manifest = Manifest(
            format="arrays",
            kind=Kind.ARRAYS,
            splits={"train": train, "val": validation},
            features={"x": Feature(dtype, shape), "y": Feature(y_dtype, [] if width == 1 else [width])},
            data_sha256="0" * 64,
            data_bytes=1,
            classes=None if classes is None else [str(i) for i in range(classes)],
            class_counts={} if classes is None else {"train": [train // classes] * classes},
            columns={"x": ColumnStats(count=train), "y": ColumnStats(count=train, values=zeros_and_ones)},
        )
        return manifest, pa.table(columns)

    return made


def table(columns: dict[str, Any], *, text: Sequence[str] = ()) -> tuple[Manifest, pa.Table]:
    """The last `VALIDATION` rows are the split `val`; None is missing. `text` are columns of free text."""
    made = pa.table(columns)
    train = len(made) - VALIDATION
    manifest = Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": train, "val": VALIDATION},
        features={
            name: Feature(_DTYPES[str(made.schema.field(name).type)], []) for name in made.column_names
        },
        data_sha256="0" * 64,
        data_bytes=1,
        columns={
            name: _stats(made.column(name)[:train].to_pylist(), name in text) for name in made.column_names
        },
        text_columns=list(text),
    )
    return manifest, made


def numbers(*names: str, target: str = "target") -> Data:
    def made() -> tuple[Manifest, pa.Table]:
        rng = generator()
        return table({name: rng.standard_normal(ROWS + VALIDATION) for name in (*names, target)})

    return made


def texts() -> tuple[Manifest, pa.Table]:
    rng = generator()
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    lines = [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(ROWS + VALIDATION)]
    labels = [str(label) for label in rng.integers(0, 2, ROWS + VALIDATION)]
    return table({"text": lines, "label": labels}, text=["text"])


#: Six indices for each text of `texts`.
TEXT_STEPS = [
    c("Words", columns=["text"], max_tokens=50),
    c("Truncate", columns=["text"], length=6),
    c("Pad", columns=["text"], length=6),
]


def _stats(cells: list[Any], is_text: bool) -> ColumnStats:
    present = [value for value in cells if value is not None]
    listed = sorted({value: present.count(value) for value in present}.items())
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    values = np.array(present, dtype="float64") if is_number else None
    return ColumnStats(
        count=len(present),
        missing=len(cells) - len(present),
        values=None if is_text else listed,
        min=None if values is None else float(values.min()),
        max=None if values is None else float(values.max()),
        mean=None if values is None else float(values.mean()),
        std=None if values is None else float(values.std()),
    )
