"""One dataset's ingest: runs `python -m workers.ingest` under limits, then commits what it made.

The bytes are hostile, so they are read in a process of its own, without torch, database or broker.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy.orm import Session

from core.data.manifest import Manifest
from core.db.models import Dataset, utc_now
from core.db.statements import datasets, leases
from core.errors import Invalid
from modelyard.specs import Problem, ProblemError
from workers.finish import clear_earlier, clear_scratch
from workers.house import House
from workers.ledger import Fenced

log = structlog.get_logger()

LISTEN_S = 0.05


def ingest(house: House, dataset: Dataset) -> None:
    """Ends one claimed dataset as ready or failed; gives it back when the worker drains. Raises nothing."""
    bound = log.bind(dataset=dataset.id, name=dataset.name, version=dataset.version)
    out = house.settings.scratch() / "ingest" / dataset.id / str(dataset.fence)
    try:
        clear_earlier(out)
        out.mkdir(parents=True)
        source = house.storage.fetch(dataset.source_key)
        exit_code = _run(house, dataset, source, out)
        if exit_code is None:
            _end(house, dataset, state="queued")
        elif exit_code == 0:
            _commit(house, dataset, out)
        else:
            _end(house, dataset, state="failed", error=_problem(out, exit_code))
        bound.info("ingest_ends", exit_code=exit_code)
    except Fenced:
        bound.warning("ingest_fenced", hint="another worker has it, or it was deleted")
    except Exception:
        bound.exception("ingest_failed", hint="the sweep will give it to a worker again")
    finally:
        clear_scratch(out)


def _run(house: House, dataset: Dataset, source: Path, out: Path) -> int | None:
    """The exit code; None where the worker drains."""
    settings = house.settings
    command = [
        sys.executable, "-m", "workers.ingest", str(source), str(out),
        "--format", dataset.format,
        "--options", msgspec.json.encode(dataset.options).decode(),
        "--filename", dataset.filename,
        "--memory-bytes", str(settings.ingest_memory_bytes),
        "--cpu-seconds", str(int(settings.ingest_timeout_s)),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            started = time.monotonic()
            next_beat = started + settings.beat_s
            while process.poll() is None:
                # CPU seconds do not bound a reader that waits for ever, as Arrow may when memory runs out.
                if time.monotonic() - started > settings.ingest_timeout_s:
                    process.kill()
                if house.draining.wait(LISTEN_S):
                    return None
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + settings.beat_s
                    _beat(house, dataset)
        finally:
            process.kill()
        return process.returncode


def _beat(house: House, dataset: Dataset) -> None:
    with house.database.write() as session:
        if session.scalar(leases.beat_dataset(dataset.id, dataset.fence)) is None:
            raise Fenced(dataset.id)
        session.commit()


def _commit(house: House, dataset: Dataset, out: Path) -> None:
    """Files first, then the row."""
    manifest = (out / "manifest.json").read_bytes()
    checked = msgspec.json.decode(manifest, type=Manifest)
    prefix = f"datasets/{dataset.id}/{dataset.fence}"
    keys = [f"{prefix}/{name}" for name in ("data.arrow", "manifest.json")]
    for key in keys:
        house.storage.adopt(key, out / Path(key).name)
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
    """What the ingest process writes into problem.json."""

    code: str
    detail: str
    errors: list[ProblemError] = []


def _problem(out: Path, exit_code: int) -> dict[str, Any]:
    """The process's own words; where it was ended by a limit it had none."""
    path = out / "problem.json"
    if path.is_file():
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    else:
        detail = (
            f"reading the upload needed more memory or time than allowed (the reader ended: {exit_code}): "
            "split it, or make its files smaller"
        )
        report = _Report("too_large", detail)
    problem = Problem(
        type=f"urn:modelyard:problem:{report.code}",
        title=Invalid.__name__,
        status=422,
        detail=report.detail,
        code=report.code,
        errors=report.errors,
    )
    return dict(msgspec.to_builtins(problem))
