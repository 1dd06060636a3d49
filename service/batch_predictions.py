"""From the body of a batch prediction to a queued one. What no row of it could be answered is refused."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.data.manifest import Kind, Manifest
from core.db.models import BatchPrediction, Dataset, Upload, Version, utc_now
from core.db.statements import checkpoints, datasets, models, uploads, workers
from core.errors import Conflict, Gone, Invalid
from core.faults import fault, show, suggestion
from core.storage import Storage
from core.uploads import upload_key
from modelyard import specs
from modelyard.specs import BatchRequest, BatchState, ProblemError, Wanted
from service import planner, resumable
from service.from_upload import wrong_upload
from service.idempotency import Once, in_flight
from service.parts import Parts
from service.pools import pool_of
from service.quotas import require_place
from service.submit import find_dataset
from service.views import batch_view, manifest_of

#: So much of an upload is looked at to tell what it is.
_HEAD_BYTES = 64 * 1024
_PARQUET_MAGIC = b"PAR1"


class _Column(msgspec.Struct):
    name: str


class Takes(msgspec.Struct):
    """What the service reads of a version's manifest: what a row must be."""

    kind: Kind
    prepare: list[_Column]
    raw_shape: list[int] | None = None


@dataclass(frozen=True)
class Rows:
    """Where they come from: one of both."""

    dataset: Dataset | None = None
    upload: Upload | None = None


async def accept(parts: Parts, owner: str, asked: BatchRequest, once: Once) -> Response[Any]:
    """202 and a queued batch prediction. Raises Invalid where the model can't read the rows."""
    _require_one(asked)
    name, _, reference = asked.model.partition("@")
    version, _weights = await parts.names.resolve(owner, name, reference or None)
    takes = await asyncio.to_thread(_read_takes, parts.storage, version)
    if asked.dataset is not None:
        rows = Rows(dataset=await _dataset(parts, owner, asked.dataset))
        assert rows.dataset is not None
        errors = wrong_with(takes, manifest_of(rows.dataset), asked.split)
    else:
        rows = Rows(upload=await _upload(parts, owner, str(asked.upload)))
        assert rows.upload is not None
        errors = await asyncio.to_thread(_wrong_with_upload, parts.storage, takes, rows.upload)
    if errors:
        raise Invalid(
            f"{version.model}@{version.version} can't answer these rows: {errors[0].message}",
            code=errors[0].code,
            errors=errors,
        )
    return await _submit(parts, owner, asked, version, rows, once)


def _require_one(asked: BatchRequest) -> None:
    given = [name for name in ("dataset", "upload") if getattr(asked, name) is not None]
    if len(given) != 1:
        came = "both" if given else "neither"
        message = f"Expected exactly one of dataset and upload; {came} came. Name the one that has the rows."
        raise Invalid(message, errors=[ProblemError("", "invalid", message)])
    if asked.split is not None and asked.dataset is None:
        message = "An upload has no splits: leave split out."
        raise Invalid(message, errors=[ProblemError("/split", "invalid", message)])


def _read_takes(storage: Storage, version: Version) -> Takes:
    try:
        return msgspec.json.decode(storage.fetch(version.manifest_key).read_bytes(), type=Takes)
    except FileNotFoundError as error:
        name = f"{version.model}@{version.version}"
        raise Gone(f"The files of {name} are no longer there.", code="collected") from error


async def _dataset(parts: Parts, owner: str, reference: str) -> Dataset:
    try:
        if planner.REFERENCE.fullmatch(reference) is None:
            raise planner.wrong_dataset("invalid", f"expected name or name@version, got {show(reference)}")
        return await find_dataset(parts, owner, reference)
    except Invalid as error:
        said = error.errors[0].message if error.errors else error.detail
        raise Invalid(
            f"There are no rows to answer: {said}.", code=error.code, errors=error.errors
        ) from error


def wrong_with(takes: Takes, manifest: Manifest, split: str | None) -> list[ProblemError]:
    """Why no row of a dataset could be answered; empty where some may."""
    errors: list[ProblemError] = []
    if split is not None and split not in manifest.splits:
        names = list(manifest.splits)
        message = (
            f"The dataset has no split {show(split)}.{suggestion(split, names)} It has {', '.join(names)}."
        )
        fault(errors, "/split", "unknown_split", message)
    if manifest.kind is not takes.kind:
        message = f"The model takes {takes.kind}, and the dataset holds {manifest.kind}; name another."
        fault(errors, "/dataset", "wrong_kind", message)
    elif takes.kind is Kind.TABLE:
        lacking = [column.name for column in takes.prepare if column.name not in manifest.features]
        if lacking:
            message = f"The model takes columns that the dataset lacks: {show(lacking)}; add them."
            fault(errors, "/dataset", "missing_columns", message)
    elif takes.kind is Kind.ARRAYS and manifest.features["x"].shape != takes.raw_shape:
        came = manifest.features["x"].shape
        message = f"The model takes arrays of shape {takes.raw_shape}, and those of the dataset are {came}."
        fault(errors, "/dataset", "wrong_shape", message)
    return errors


async def _upload(parts: Parts, owner: str, upload_id: str) -> Upload:
    async with parts.database.read() as session:
        row = await resumable.find_upload(session, owner, upload_id)
    _require_complete(row, upload_id)
    assert row is not None
    return row


def _require_complete(row: Upload | None, upload_id: str) -> None:
    if (wrong := wrong_upload(row, upload_id)) is not None:
        one = ProblemError("/upload", "unknown_upload", f"{wrong}.")
        raise Invalid(f"{wrong}.", code="unknown_upload", errors=[one])


def _wrong_with_upload(storage: Storage, takes: Takes, upload: Upload) -> list[ProblemError]:
    errors: list[ProblemError] = []
    if takes.kind is not Kind.TABLE:
        message = (
            f"The model takes {takes.kind}, which a batch prediction reads from a dataset alone: push the "
            "file as a dataset and name that."
        )
        fault(errors, "/upload", "unsupported_upload", message)
        return errors
    with storage.fetch(upload_key(upload.id)).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not (head.startswith(_PARQUET_MAGIC) or _is_text(head)):
        message = (
            "Expected a CSV, a Parquet or a JSON lines file, and the upload is none of these; push it as a "
            "dataset and name that."
        )
        fault(errors, "/upload", "unsupported_upload", message)
    return errors


def _is_text(head: bytes) -> bool:
    """Whether it could be a CSV or JSON lines: UTF-8, but for a character that the end of the head cuts."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
    return b"\0" not in head


async def _submit(
    parts: Parts, owner: str, asked: BatchRequest, version: Version, rows: Rows, once: Once
) -> Response[Any]:
    """The row and the remembered reply in one transaction, then the wake-up."""
    async with parts.database.write() as session:
        if (earlier := await once.earlier(session)) is not None:
            return earlier
        await require_place(session, parts, owner)
        await _hold(session, version, rows)
        known = {worker.pool for worker in await session.scalars(workers.list_workers())}
        pool = pool_of("auto", known)
        row = _row(owner, asked, version, rows, pool)
        if pool not in known:
            row.warnings = [f"no worker of the pool {pool} was known; it waits for one"]
        reply = msgspec.to_builtins(batch_view(row, rows.dataset))
        session.add(row)
        headers = {"Location": f"/v1/batch-predictions/{row.id}"}
        once.remember(session, HTTPStatus.ACCEPTED, reply, headers)
        try:
            await session.commit()
        except IntegrityError as error:
            raise in_flight() from error
    parts.sweeper.poke(pool)
    return Response(reply, status_code=HTTPStatus.ACCEPTED, headers=headers)


async def _hold(session: AsyncSession, version: Version, rows: Rows) -> None:
    """Locks what is read until the transaction ends: who deletes it looks for its readers after that."""
    if version.checkpoint_id is not None:
        await session.scalars(checkpoints.lock_checkpoints([version.checkpoint_id]))
    if (await session.get_one(Version, version.id)).state != models.READY:
        name = f"{version.model}@{version.version}"
        raise Conflict(f"{name} was deleted meanwhile.", code="version_not_ready")
    if rows.dataset is not None:
        row = (await session.scalars(datasets.lock_dataset(rows.dataset.id))).one()
        if row.state != "ready":
            raise Conflict(f"{row.name}@{row.version} was deleted meanwhile.", code="dataset_deleted")
    if rows.upload is not None:
        locked = (await session.scalars(uploads.lock_upload(rows.upload.id))).one_or_none()
        _require_complete(locked, rows.upload.id)


def _row(owner: str, asked: BatchRequest, version: Version, rows: Rows, pool: str) -> BatchPrediction:
    now = utc_now()
    return BatchPrediction(
        id=ids.batch_id(),
        owner=owner,
        state=BatchState.QUEUED,
        wanted=Wanted.RUN,
        revision=0,
        pool=pool,
        model=version.model,
        version=version.version,
        version_id=version.id,
        dataset_id=rows.dataset.id if rows.dataset is not None else None,
        split=asked.split,
        upload_id=rows.upload.id if rows.upload is not None else None,
        format=asked.format,
        warnings=[],
        attempt=0,
        losses=0,
        progress=msgspec.to_builtins(specs.BatchProgress(rows=_count(rows, asked.split))),
        transitions=[{"state": BatchState.QUEUED, "at": now.isoformat(), "reason": "submitted"}],
        is_cleared=False,
        created_at=now,
        queued_at=now,
    )


def _count(rows: Rows, split: str | None) -> int | None:
    """None where a worker has yet to count them."""
    if rows.dataset is None:
        return None
    manifest = manifest_of(rows.dataset)
    return manifest.num_samples if split is None else manifest.splits[split]
