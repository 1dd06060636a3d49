"""A worker's house on a test's database, with a dataset of digits and jobs to train on it."""

import hashlib
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sqlalchemy import select

from core import ids
from core.data.arrow import open_table
from core.data.manifest import Kind, Manifest
from core.db.models import Base, Checkpoint, Dataset, Event, Job, Metric, Version, utc_now
from core.db.statements import checkpoints, jobs
from core.nets.plan import Source, check
from core.settings import Settings
from modelyard.specs import Feature
from workers.house import House

OWNER = "default"
#: Small enough for milliseconds an epoch; dropout and batch norm so that state beside the weights counts.
NET = {
    "type": "Sequential",
    "layers": [
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 32},
        {"type": "BatchNorm1d"},
        {"type": "ReLU"},
        {"type": "Dropout", "p": 0.2},
        {"type": "Linear", "out_features": 10},
    ],
}


def open_house(database_url: str, home: Path, **settings: Any) -> House:
    house = House(Settings(home=home, database_url=database_url, **settings))
    Base.metadata.create_all(house.database.engine)
    return house


def add_digits(house: House, folder: Path) -> Manifest:
    """scikit-learn's digits as a ready dataset `digits@1`: 1,500 training and 297 test rows."""
    digits = load_digits()
    images = (digits.images * 255 / 16).astype("uint8")
    table = pa.table(
        {
            "image": pa.array([png(image) for image in images], pa.binary()),
            "label": pa.array(digits.target.astype("int64")),
            "file": [f"{row}.png" for row in range(len(images))],
        }
    )
    manifest = Manifest(
        format="image_csv",
        kind=Kind.IMAGES,
        splits={"train": 1500, "test": 297},
        features={"image": Feature("uint8", [1, 8, 8]), "label": Feature("int64", [])},
        data_sha256="",
        data_bytes=0,
        classes=[str(digit) for digit in range(10)],
        image_mode="L",
        image_sizes=[(8, 8, len(images))],
    )
    return _store(house, folder, "digits", table, manifest)


def add_spoiled_digits(house: House, folder: Path, rows: list[int]) -> None:
    """The digits once more as `spoiled@1`, the images of these rows cut short."""
    with house.database.read() as session:
        digits = session.get_one(Dataset, "ds_digits")
    table = open_table(house.storage.fetch("datasets/ds_digits/1/data.arrow"))
    images = table.column("image").to_pylist()
    for row in rows:
        images[row] = images[row][:40]
    spoiled = table.set_column(0, "image", pa.array(images, pa.binary()))
    _store(house, folder, "spoiled", spoiled, msgspec.convert(digits.manifest, Manifest))


def add_table(house: House, folder: Path, name: str, made: tuple[Manifest, pa.Table]) -> Manifest:
    """As a ready dataset of that name."""
    manifest, table = made
    return _store(house, folder, name, table, manifest)


def add_job(house: House, manifest: Manifest, **trainer: Any) -> str:
    """Queues a job on the digits; keywords go into `trainer`, `optimizer=` replaces the optimizer."""
    raw: dict[str, Any] = {"name": "digits", "dataset": "digits@1", "model": NET}
    if "optimizer" in trainer:
        raw["optimizer"] = trainer.pop("optimizer")
    raw["trainer"] = {"batch_size": 100, **trainer}
    return queue_job(house, check(raw, Source("digits@1", manifest)).spec)


def add_arrays(
    house: House, folder: Path, x: NDArray[np.float64], y: NDArray[np.int64], name: str = "arrays"
) -> Manifest:
    """Rows of numbers as a ready dataset of that name: the last fifth is the split `test`."""
    count, test = len(x), len(x) // 5
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x[0].size)
    table = pa.table({"x": flat, "y": pa.array(y)})
    manifest = Manifest(
        format="arrays",
        kind=Kind.ARRAYS,
        splits={"train": count - test, "test": test},
        features={"x": Feature("float64", list(x.shape[1:])), "y": Feature("int64", [])},
        data_sha256="",
        data_bytes=0,
        classes=[str(value) for value in range(int(y.max()) + 1)],
    )
    return _store(house, folder, name, table, manifest)


def queue_job(house: House, spec: dict[str, Any], dataset: str = "digits") -> str:
    """Queues a checked spec."""
    job_id = ids.job_id()
    now = utc_now()
    with house.database.write() as session:
        session.add(
            Job(
                id=job_id,
                owner=OWNER,
                name="digits",
                state="queued",
                wanted="run",
                pool="cpu",
                dataset_id=f"ds_{dataset}",
                spec=spec,
                warnings=[],
                progress={},
                metrics={},
                resolved={},
                transitions=[],
                created_at=now,
                queued_at=now,
            )
        )
        session.commit()
    return job_id


def ask(house: House, job_id: str, do: Callable[[Job, datetime], Event | None]) -> None:
    """As the service does where the owner asks: `steering.cancel`, `pause` or `resume`."""
    with house.database.write() as session:
        event = do(session.scalars(jobs.lock_job(job_id)).one(), utc_now())
        session.add_all([] if event is None else [event])
        session.commit()


def read_job(house: House, job_id: str) -> Job:
    with house.database.read() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def read_jobs(house: House) -> list[Job]:
    with house.database.read() as session:
        return list(session.scalars(select(Job).order_by(Job.id)))


def read_events(house: House, job_id: str) -> list[Event]:
    with house.database.read() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)))


def read_metrics(house: House, job_id: str) -> list[Metric]:
    with house.database.read() as session:
        return list(session.scalars(select(Metric).where(Metric.job_id == job_id).order_by(Metric.step)))


def read_checkpoints(house: House, job_id: str) -> list[Checkpoint]:
    """Newest first."""
    with house.database.read() as session:
        return list(session.scalars(checkpoints.ready_checkpoints(job_id)))


def read_versions(house: House) -> list[Version]:
    with house.database.read() as session:
        return list(session.scalars(select(Version).order_by(Version.version)))


def _store(house: House, folder: Path, name: str, table: pa.Table, manifest: Manifest) -> Manifest:
    """As an ingest leaves it: two files in storage, and a ready row."""
    arrow = folder / "data.arrow"
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    manifest = msgspec.structs.replace(
        manifest,
        data_sha256=hashlib.sha256(arrow.read_bytes()).hexdigest(),
        data_bytes=arrow.stat().st_size,
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    for file_name in ("data.arrow", "manifest.json"):
        house.storage.adopt(f"datasets/ds_{name}/1/{file_name}", folder / file_name)
    with house.database.write() as session:
        session.add(
            Dataset(
                id=f"ds_{name}",
                owner=OWNER,
                name=name,
                version=1,
                state="ready",
                format=manifest.format,
                options={},
                filename=f"{name}.zip",
                source_key=f"datasets/ds_{name}/source",
                bytes=manifest.data_bytes,
                sha256=manifest.data_sha256,
                manifest=msgspec.to_builtins(manifest),
                error=None,
                fence=1,
                created_at=utc_now(),
            )
        )
        session.commit()
    return manifest


def png(image: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
