"""One dataset's ingest: fetched first where it names a source, then read by `python -m workers.ingest` under
limits; what that made is committed.

The bytes are hostile, so they are read in a process of its own, without torch, database or broker.
"""

from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy.orm import Session

from core.data.manifest import Manifest
from core.db.models import Dataset, utc_now
from core.db.statements import datasets
from core.errors import Invalid, Unavailable
from core.fault_points import reach
from modelyard.specs import Problem, ProblemError
from workers.fetching import fetch
from workers.finish import clear_earlier, clear_scratch
from workers.house import House
from workers.ledger import Fenced
from workers.readers import run_reader

log = structlog.get_logger()


def ingest(house: House, dataset: Dataset) -> None:
    """Ends one claimed dataset as ready or failed; gives it back when the worker drains. Raises nothing."""
    bound = log.bind(dataset=dataset.id, name=dataset.name, version=dataset.version)
    out = house.settings.scratch() / "ingest" / dataset.id / str(dataset.fence)
    try:
        clear_earlier(out)
        out.mkdir(parents=True)
        folder = out / "fetch"
        exit_code = fetch(house, dataset, folder) if not dataset.source_key else 0
        if exit_code == 0:
            folder = out / "read"
            exit_code = _read(house, dataset, house.storage.fetch(dataset.source_key), folder)
        if exit_code is None:
            _end(house, dataset, state="queued")
        elif exit_code == 0:
            _commit(house, dataset, folder)
        else:
            _end(house, dataset, state="failed", error=_problem(folder, exit_code))
        bound.info("ingest_ends", exit_code=exit_code)
    except Fenced:
        bound.warning("ingest_fenced", hint="another worker has it, or it was deleted")
    except Exception:
        bound.exception("ingest_failed", hint="the sweep will give it to a worker again")
    finally:
        clear_scratch(out)


def _read(house: House, dataset: Dataset, source: Path, out: Path) -> int | None:
    """The exit code; None where the worker drains."""
    settings = house.settings
    arguments = [
        str(source), str(out),
        "--format", dataset.format,
        "--options", msgspec.json.encode(dataset.options).decode(),
        "--filename", dataset.filename,
        "--memory-bytes", str(settings.ingest_memory_bytes),
        "--cpu-seconds", str(int(settings.ingest_timeout_s)),
    ]  # fmt: skip
    return run_reader(house, dataset, "workers.ingest", arguments, settings.ingest_timeout_s)


def _commit(house: House, dataset: Dataset, out: Path) -> None:
    """Files first, then the row."""
    manifest = (out / "manifest.json").read_bytes()
    checked = msgspec.json.decode(manifest, type=Manifest)
    prefix = f"datasets/{dataset.id}/{dataset.fence}"
    keys = [f"{prefix}/{name}" for name in ("data.arrow", "manifest.json")]
    for key in keys:
        house.storage.adopt(key, out / Path(key).name)
    reach("ingest.stored")
    try:
        _end(house, dataset, state="ready", manifest=msgspec.to_builtins(checked))
    except Fenced:  # deleted meanwhile, or another's: nobody will look for these files
        for key in keys:
            house.storage.delete(key)
        raise


def _end(house: House, dataset: Dataset, *, state: str, **values: Any) -> None:
    with house.database.write() as session:
        row = _lock(session, dataset)
        row.state = state
        for name, value in values.items():
            setattr(row, name, value)
        if state != "queued":
            row.finished_at = utc_now()
        row.revision += 1
        session.commit()


def _lock(session: Session, dataset: Dataset) -> Dataset:
    row = session.scalar(datasets.lock_dataset(dataset.id, fence=dataset.fence))
    if row is None:
        raise Fenced(dataset.id)
    return row


class _Report(msgspec.Struct):
    """What a reader's process writes into problem.json."""

    code: str
    detail: str
    errors: list[ProblemError] = []


#: Codes of a problem that is not in the dataset: the same may succeed another time.
_PASSING = frozenset({"fetch_failed", "fetch_timeout", "storage_full"})


def _problem(out: Path, exit_code: int) -> dict[str, Any]:
    """The process's own words; where it was ended by a limit it had none."""
    path = out / "problem.json"
    if path.is_file():
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    elif out.name == "fetch":
        detail = (
            f"fetching took longer than allowed (it ended: {exit_code}); fetch it again, or raise "
            "MODELYARD_FETCH_TIMEOUT_S"
        )
        report = _Report("fetch_timeout", detail)
    else:
        detail = (
            f"reading the upload needed more memory or time than allowed (the reader ended: {exit_code}): "
            "split it, or make its files smaller"
        )
        report = _Report("too_large", detail)
    kind, status = (Unavailable, 503) if report.code in _PASSING else (Invalid, 422)
    problem = Problem(
        type=f"urn:modelyard:problem:{report.code}",
        title=kind.__name__,
        status=status,
        detail=report.detail,
        code=report.code,
        errors=report.errors,
    )
    return dict(msgspec.to_builtins(problem))
