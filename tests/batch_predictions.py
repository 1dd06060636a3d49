"""Batch predictions in a worker's house: queued as the service does, read back as a user would."""

import csv
import io
import json
import multiprocessing.connection
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow.parquet as pq

from core import ids
from core.db.models import BatchPrediction, Dataset, PredictionPart, Upload, utc_now
from core.db.statements import batch_predictions as statements
from core.predict import Predictor
from core.storage.durable import sha256_file
from core.uploads import upload_key
from modelyard.specs import BatchProgress
from tests import house as homes
from workers.house import House
from workers.predictions import child, messages
from workers.predictions.answers import Answering, Record

Answer = dict[str, Any]

#: How long a child that runs slowly takes for each forward.
SLOW_S = 0.15


def queue(house: House, dataset: str | None = None, **values: Any) -> str:
    """Of the newest version in the house."""
    version = homes.read_versions(house)[-1]
    now = utc_now()
    row = {
        "id": ids.batch_id(),
        "owner": homes.OWNER,
        "state": "queued",
        "wanted": "run",
        "pool": "cpu",
        "model": version.model,
        "version": version.version,
        "version_id": version.id,
        "dataset_id": f"ds_{dataset}" if dataset else None,
        "format": "jsonl",
        "warnings": [],
        "progress": msgspec.to_builtins(BatchProgress()),
        "transitions": [],
        "created_at": now,
        "queued_at": now,
    }
    with house.database.write() as session:
        batch = BatchPrediction(**{**row, **values})
        session.add(batch)
        session.commit()
        return batch.id


def upload(house: House, data: bytes) -> str:
    """A complete upload; its id."""
    upload_id, now = ids.upload_id(), utc_now()
    path = house.settings.home / "upload"
    path.write_bytes(data)
    with house.database.write() as session:
        session.add(
            Upload(
                id=upload_id,
                owner=homes.OWNER,
                filename="rows",
                length=len(data),
                offset=len(data),
                sha256=sha256_file(path),
                created_at=now,
                expires_at=now,
            )
        )
        session.commit()
    house.storage.adopt(upload_key(upload_id), path)
    return upload_id


def read(house: House, batch_id: str) -> BatchPrediction:
    with house.database.read() as session:
        return session.get_one(BatchPrediction, batch_id)


def parts(house: House, batch_id: str) -> list[PredictionPart]:
    with house.database.read() as session:
        return list(session.scalars(statements.parts_of(batch_id)))


def hashes(house: House, batch_id: str) -> tuple[str, str]:
    """Of the two files, as they lie in storage; the rows say the same."""
    results = read(house, batch_id).results
    assert results is not None, read(house, batch_id).error
    found = [sha256_file(house.storage.fetch(results[which]["key"])) for which in ("output", "errors")]
    assert found == [results[which]["sha256"] for which in ("output", "errors")]
    return found[0], found[1]


def answers(house: House, batch_id: str, which: str = "output") -> list[Answer]:
    """The rows of a file; a CSV's cells are its text."""
    batch = read(house, batch_id)
    assert batch.results is not None, batch.error
    data = house.storage.fetch(batch.results[which]["key"]).read_bytes()
    match batch.format:
        case "parquet":
            return list(pq.read_table(io.BytesIO(data)).to_pylist())
        case "csv":
            return list(csv.DictReader(io.StringIO(data.decode())))
        case _:
            return [json.loads(line) for line in data.splitlines()]


def predictor(house: House) -> Predictor:
    """The newest version, loaded by hand."""
    version = homes.read_versions(house)[-1]
    weights = homes.read_checkpoints(house, version.job_id)
    chosen = next(row for row in weights if row.id == version.checkpoint_id)
    return Predictor.load(house.storage.fetch(version.manifest_key), house.storage.fetch(chosen.weights_key))


def dataset(house: House, name: str) -> Dataset:
    with house.database.read() as session:
        return session.get_one(Dataset, f"ds_{name}")


# What a child may run in place of `process._run`


def run_slowly_at_first(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    """Slowly where it is the first attempt."""
    if messages.decode_order(payload).scratch.endswith("/1"):
        _slow_down()
    child.main(connection, payload)


def _slow_down() -> None:
    original = Answering.answer

    def slowly(self: Answering, instances: Sequence[Any]) -> list[Record]:
        time.sleep(SLOW_S)
        return original(self, instances)

    Answering.answer = slowly  # type: ignore[method-assign] # in this process alone


def die(_connection: multiprocessing.connection.Connection, _payload: bytes) -> None:
    raise SystemExit(7)
