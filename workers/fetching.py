"""One dataset's fetch: runs `python -m workers.fetch`, then puts what it made where an upload would lie."""

from pathlib import Path
from typing import Any

import msgspec

from core.db.models import Dataset
from core.db.statements import datasets
from workers.fetch import Fetched
from workers.house import House
from workers.ledger import Fenced
from workers.readers import run_reader


def fetch(house: House, dataset: Dataset, out: Path) -> int | None:
    """The exit code, None where the worker drains. After 0 the row names its bytes, their format and options,
    and so does `dataset`: a later attempt does not fetch again. Raises Fenced."""
    settings = house.settings
    arguments = [
        msgspec.json.encode(dataset.source).decode(), str(out),
        "--max-bytes", str(settings.max_upload_bytes),
        "--min-free-bytes", str(settings.min_free_bytes),
        *(["--mirror", settings.dataset_mirror] if settings.dataset_mirror else []),
    ]  # fmt: skip
    exit_code = run_reader(house, dataset, "workers.fetch", arguments, settings.fetch_timeout_s)
    if exit_code == 0:
        _commit(house, dataset, out)
    return exit_code


def _commit(house: House, dataset: Dataset, out: Path) -> None:
    """The file first, then the row."""
    fetched = msgspec.json.decode((out / "fetched.json").read_bytes(), type=Fetched)
    key = f"datasets/{dataset.id}/source"
    house.storage.adopt(key, out / fetched.filename)
    values: dict[str, Any] = {
        "source_key": key,
        "bytes": fetched.bytes,
        "sha256": fetched.sha256,
        "format": fetched.format,
        "options": fetched.options,
        "filename": fetched.filename,
    }
    with house.database.write() as session:
        row = session.scalar(datasets.lock_dataset(dataset.id, fence=dataset.fence))
        if row is None:  # its bytes stay: who took it over may be about to name the same key
            raise Fenced(dataset.id)
        for name, value in values.items():
            setattr(row, name, value)
            setattr(dataset, name, value)
        row.revision += 1
        session.commit()
