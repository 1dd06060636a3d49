"""A worker's house on a test's database, with a dataset of digits and jobs to train on it."""

import hashlib
import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits
from sqlalchemy import select

from core import ids
from core.data.manifest import Kind, Manifest
from core.db.models import Base, Checkpoint, Dataset, Event, Job, Metric, Version, utc_now
from core.db.statements import checkpoints
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
            "image": pa.array([_png(image) for image in images], pa.binary()),
            "label": pa.array(digits.target.astype("int64")),
            "file": [f"{row}.png" for row in range(len(images))],
        }
    )
    arrow = folder / "data.arrow"
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    manifest = Manifest(
        format="image_csv",
        kind=Kind.IMAGES,
        splits={"train": 1500, "test": 297},
        features={"image": Feature("uint8", [1, 8, 8]), "label": Feature("int64", [])},
        data_sha256=hashlib.sha256(arrow.read_bytes()).hexdigest(),
        data_bytes=arrow.stat().st_size,
        classes=[str(digit) for digit in range(10)],
        image_mode="L",
        image_sizes=[(8, 8, len(images))],
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    for name in ("data.arrow", "manifest.json"):
        house.storage.adopt(f"datasets/ds_digits/1/{name}", folder / name)
    with house.database.write() as session:
        session.add(
            Dataset(
                id="ds_digits",
                owner=OWNER,
                name="digits",
                version=1,
                state="ready",
                format="image_csv",
                options={},
                filename="digits.zip",
                source_key="datasets/ds_digits/source",
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


def add_job(house: House, manifest: Manifest, **trainer: Any) -> str:
    """Queues a job on the digits; keywords go into `trainer`, `optimizer=` replaces the optimizer."""
    raw: dict[str, Any] = {"name": "digits", "dataset": "digits@1", "model": NET}
    if "optimizer" in trainer:
        raw["optimizer"] = trainer.pop("optimizer")
    raw["trainer"] = {"batch_size": 100, **trainer}
    return queue_job(house, check(raw, Source("digits@1", manifest)).spec)


def queue_job(house: House, spec: dict[str, Any]) -> str:
    """Queues a checked spec on the digits."""
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
                dataset_id="ds_digits",
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


def read_job(house: House, job_id: str) -> Job:
    with house.database.read() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


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


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
