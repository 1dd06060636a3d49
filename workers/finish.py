"""What outlives an attempt: checkpoints made durable, versions registered, scratch cleared."""

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient

from core import ids
from core.db.models import Checkpoint, Dataset, Job, Version, utc_now
from core.db.statements import checkpoints, datasets, jobs, models
from core.fault_points import reach
from core.storage.keys import suspects_key
from modelyard.specs import JobError, JobErrorCode, JobState
from workers.house import House
from workers.ledger import MEASURED, Fenced, Ledger, Wish, finite
from workers.messages import Saved, Verified

log = structlog.get_logger()

#: Two jobs that register under one name at once may choose the same number: the later tries again.
REGISTER_TRIES = 5


def checkpoint_row(ledger: Ledger, saved: Saved) -> Checkpoint:
    folder = f"jobs/{ledger.job_id}/{ledger.fence}/{saved.step}"
    return Checkpoint(
        id=ids.checkpoint_id(),
        owner=ledger.owner,
        job_id=ledger.job_id,
        state="ready",
        fence=ledger.fence,
        step=saved.step,
        epoch=saved.epoch,
        is_best=False,
        metrics=finite(saved.metrics),
        weights_key=f"{folder}/weights.pt",
        weights_bytes=saved.weights.size,
        weights_sha256=saved.weights.sha256,
        state_key=f"{folder}/state.pt",
        state_bytes=saved.state.size,
        state_sha256=saved.state.sha256,
        created_at=utc_now(),
    )


def commit_checkpoint(house: House, ledger: Ledger, row: Checkpoint) -> Wish:
    """Its files are in storage: now the row, then what is no longer needed goes. Returns what is wished."""
    reach("worker.stored")
    try:
        wish, unneeded = ledger.patiently(lambda: _write_checkpoint(ledger, row))
    except Fenced:
        if not _is_committed(house, Checkpoint, row.id):
            _delete(house, [row.weights_key, row.state_key])
        raise
    reach("worker.committed")
    _delete(house, unneeded)
    return wish


def _write_checkpoint(ledger: Ledger, row: Checkpoint) -> tuple[Wish, list[str]]:
    """What is wished, and the keys of what is no longer kept."""
    policy = ledger.spec["trainer"]["checkpoint"]
    # Only the end of an epoch is judged: where a training paused must not change which is the best.
    value = row.metrics.get(policy["monitor"]) if MEASURED in row.metrics else None
    with ledger.transaction(losses=0) as turn:
        session, job = turn.session, ledger.lock(turn.session)
        if session.get(Checkpoint, row.id) is not None:  # a try before this one came through after all
            return turn.wish, _collected(session, ledger.job_id)
        make_transient(row)  # nor does it count as written because a try before this one had got so far
        row.is_best = is_better(value, job.best["value"] if job.best else None, policy["mode"])
        if row.is_best:
            session.execute(checkpoints.forget_best(ledger.job_id))
            job.best = {"checkpoint": row.id, "step": row.step, "epoch": row.epoch, "value": value}
        session.add(row)
        data = {"checkpoint": row.id, "step": row.step, "epoch": row.epoch, "is_best": row.is_best}
        session.add(jobs.add_event(job, "checkpoint", data, row.created_at))
        session.flush()
        return turn.wish, _collect(session, ledger.job_id, policy["keep"])


def _collected(session: Session, job_id: str) -> list[str]:
    """Keys of what has been collected; most of their files are gone already."""
    kept = {key for keys in session.execute(checkpoints.kept_files_of(job_id)) for key in keys}
    return [key for keys in session.execute(checkpoints.files_of(job_id)) for key in keys if key not in kept]


def _is_committed(house: House, kind: type[Checkpoint | Version], row_id: str) -> bool:
    """A commit may have reached a database that could not say so."""
    with house.database.read() as session:
        return session.get(kind, row_id) is not None


def is_better(value: float | None, best: float | None, mode: str) -> bool:
    """Whether a monitored value is the best so far; what is no number never is."""
    if value is None or not math.isfinite(value):
        return False
    return best is None or (value < best if mode == "min" else value > best)


def _collect(session: Session, job_id: str, keep: int) -> list[str]:
    """Marks what is neither among the newest `keep`, nor the best, nor needed elsewhere; returns its keys."""
    rows = session.scalars(checkpoints.ready_checkpoints(job_id)).all()
    named = [row.id for row in rows[keep:] if not row.is_best]
    candidates = session.scalars(checkpoints.lock_checkpoints(named)).all()  # before asking who needs them
    needed = set(session.scalars(checkpoints.needed(named)))
    keys: list[str] = []
    for row in candidates:
        if row.id not in needed:
            row.state = "collected"
            keys += [row.weights_key, row.state_key]
    return keys


def collect_orphans(house: House, ledger: Ledger) -> None:
    """Files in storage that no row keeps: attempts before this one were killed between the two. A later
    attempt's stay: this one may have slept past its lease, and does not know it yet."""
    with house.database.read() as session:
        known = {key for keys in session.execute(checkpoints.kept_files_of(ledger.job_id)) for key in keys}
    prefix = f"jobs/{ledger.job_id}/"
    for key in list(house.storage.list(prefix)):
        fence = key.removeprefix(prefix).split("/")[0]
        if key not in known and fence.isdigit() and int(fence) < ledger.fence:
            log.info("orphan_collected", key=key)
            house.storage.delete(key)


def _delete(house: House, keys: list[str]) -> None:
    for key in keys:
        house.storage.delete(key)


def register(house: House, ledger: Ledger, verified: Verified) -> None:
    """The version `ready` and the job `succeeded` in one transaction; or `rejected` and `failed`."""
    version_id = ids.version_id()
    manifest_key = f"versions/{version_id}/manifest.json"
    house.storage.adopt(manifest_key, Path(verified.manifest.path))
    adopted = [manifest_key]
    if verified.suspects is not None:
        adopted.append(suspects_key(ledger.job_id, ledger.fence))
        house.storage.adopt(adopted[-1], Path(verified.suspects.path))
    reach("worker.registering")
    try:
        _register_in_turn(lambda: _register(ledger, verified, version_id, manifest_key), ledger)
    except (Fenced, IntegrityError):
        if not _is_committed(house, Version, version_id):
            _delete(house, adopted)
            raise


def _register_in_turn(write: Callable[[], None], ledger: Ledger) -> None:
    for attempt in range(REGISTER_TRIES):
        try:
            return ledger.patiently(write)
        except IntegrityError:
            if attempt == REGISTER_TRIES - 1:
                raise


def _register(ledger: Ledger, verified: Verified, version_id: str, key: str) -> None:
    with ledger.transaction() as turn:
        job = ledger.lock(turn.session)
        _write_version(turn.session, job, verified, version_id, key, ledger.ended)


def _write_version(
    session: Session, job: Job, verified: Verified, version_id: str, key: str, reason: str
) -> None:
    chosen = chosen_checkpoint(session, job.id)
    dataset = session.scalars(datasets.dataset_of_job(job.dataset_id)).one()
    is_ready = verified.difference <= verified.tolerance
    metrics = {**chosen.metrics, **finite(verified.test_metrics)}
    number = session.scalars(models.next_number(job.owner, job.name)).one()
    session.add(
        Version(
            id=version_id,
            owner=job.owner,
            model=job.name,
            version=number,
            state="ready" if is_ready else "rejected",
            task=verified.task,
            job_id=job.id,
            checkpoint_id=chosen.id,
            manifest_key=key,
            manifest_sha256=verified.manifest.sha256,
            signature=verified.signature,
            classes=verified.classes,
            transforms=verified.transforms,
            metrics=metrics,
            evaluation=verified.evaluation,
            lineage=_lineage(job, chosen, dataset),
            spec=job.spec,
            created_at=utc_now(),
        )
    )
    if not is_ready:
        message = (
            f"the weights read back from disk differ from the trained net by {verified.difference:.3g} "
            f"on the golden samples; {verified.tolerance:.3g} is allowed"
        )
        hint = "a layer may behave differently in eval(); the version is kept as rejected"
        job.error = msgspec.to_builtins(JobError(JobErrorCode.VERSION_REJECTED, message, hint))
        session.add(jobs.move(job, JobState.FAILED, message, utc_now()))
        return
    job.metrics = metrics
    job.registered = {"model": job.name, "version": number}
    job.progress = {**job.progress, "fraction": 1.0, "eta_seconds": 0.0}
    session.add(jobs.add_event(job, "registered", {**job.registered, "metrics": metrics}, utc_now()))
    session.add(jobs.move(job, JobState.SUCCEEDED, reason, utc_now()))


def chosen_checkpoint(session: Session, job_id: str) -> Checkpoint:
    """The best by the job's monitor, else the newest."""
    rows = session.scalars(checkpoints.ready_checkpoints(job_id)).all()
    return next((row for row in rows if row.is_best), rows[0])


def _lineage(job: Job, chosen: Checkpoint, dataset: Dataset) -> dict[str, Any]:
    forked = {"job": job.forked_from, "checkpoint": job.start_checkpoint_id}
    return {
        "job": job.id,
        "checkpoint": chosen.id,
        "dataset": dataset.name,
        "dataset_version": dataset.version,
        "dataset_sha256": dataset.sha256,
        "seed": job.resolved["seed"],
        "environment": job.resolved,
        "forked_from": forked if job.forked_from is not None else None,
    }


def clear_earlier(folder: Path) -> None:
    """Removes what attempts of a smaller fence left beside this one's folder when their worker was killed.

    A later attempt's stays: this one may have slept past its lease, and does not know it yet.
    """
    with contextlib.suppress(FileNotFoundError):
        for other in folder.parent.iterdir():
            if int(other.name) < int(folder.name):
                shutil.rmtree(other, ignore_errors=True)


def clear_scratch(folder: Path) -> None:
    """An attempt's folder, and the one around it that names the job or dataset, where it is empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another attempt's folder is in it, or it is gone
        folder.parent.rmdir()
