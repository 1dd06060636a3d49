"""From a spooled upload to a dataset version: bytes into storage first, then the row, then the wake-up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import make_transient

from core import ids
from core.db.models import Dataset, utc_now
from core.db.statements import batch_predictions, datasets
from core.errors import Conflict, Invalid
from modelyard import specs
from modelyard.specs import JobErrorCode
from service.idempotency import Once
from service.parts import Parts
from service.spool import Spooled
from service.sweep import DATA_POOL
from service.views import dataset_view

#: Two uploads under one name at once may choose the same number: the later tries again.
TRIES = 5


@dataclass(frozen=True)
class Upload:
    """What the client said of the bytes. `filename` is a label, never a path."""

    name: str
    format: str
    options: Mapping[str, Any]
    filename: str


async def accept(parts: Parts, owner: str, upload: Upload, spooled: Spooled, once: Once) -> Response[Any]:
    """202 and a new version, or 200 and the one that holds these bytes. The spool file is gone afterwards.
    Raises Invalid where there are none."""
    try:
        if spooled.size_bytes == 0:
            raise Invalid(
                "A dataset is read from a file's bytes; none came. Send the file as the body.", code="empty"
            )
        async with parts.database.read() as session:
            known = await once.earlier(session) or await _same(session, owner, upload, spooled.sha256)
        return known or await _store(parts, owner, upload, spooled, once)
    finally:
        spooled.path.unlink(missing_ok=True)


async def _store(parts: Parts, owner: str, upload: Upload, spooled: Spooled, once: Once) -> Response[Any]:
    dataset_id = ids.dataset_id()
    key = f"datasets/{dataset_id}/source"
    try:
        await asyncio.to_thread(parts.storage.adopt, key, spooled.path)
        row = _row(owner, upload, spooled, dataset_id, key)
        reply = await insert(parts, row, once, lambda session: _same(session, owner, upload, spooled.sha256))
    finally:
        # In every case, and whatever ended it: bytes without a row go, bytes of a row stay.
        await asyncio.shield(_tidy(parts, dataset_id, key))
    parts.sweeper.poke(DATA_POOL)
    return reply


async def insert(
    parts: Parts,
    row: Dataset,
    once: Once,
    same: Callable[[AsyncSession], Awaitable[Response[specs.Dataset] | None]],
) -> Response[Any]:
    """202 and `row` under the next number, or what `same` finds in the same transaction. Raises Conflict."""
    for _ in range(TRIES):
        async with parts.database.write() as session:
            known = await once.earlier(session) or await same(session)
            if known is not None:
                return known
            row.version = (await session.scalars(datasets.next_number(row.owner, row.name))).one()
            reply = reply_of(row, HTTPStatus.ACCEPTED)
            once.remember(session, HTTPStatus.ACCEPTED, msgspec.to_builtins(reply.content), reply.headers)
            session.add(row)
            try:
                await session.commit()
            except IntegrityError:
                make_transient(row)  # the same row, with the next number
                continue
            return reply
    raise Conflict(
        f"Other uploads to {row.name!r} were quicker {TRIES} times; send it again.",
        code="busy",
        retry_after_s=1,
    )


def _row(owner: str, upload: Upload, spooled: Spooled, dataset_id: str, key: str) -> Dataset:
    return Dataset(
        id=dataset_id,
        owner=owner,
        name=upload.name,
        state="queued",
        format=upload.format,
        options=dict(upload.options),
        filename=upload.filename,
        source_key=key,
        bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        created_at=utc_now(),
    )


def reply_of(row: Dataset, status: HTTPStatus) -> Response[specs.Dataset]:
    location = f"/v1/datasets/{row.name}/versions/{row.version}"
    return Response(dataset_view(row), status_code=status, headers={"Location": location})


async def _tidy(parts: Parts, dataset_id: str, key: str) -> None:
    """Asks the database rather than the exception: a commit can succeed and still be cut off. Where it
    does not answer the bytes stay, since a row may need them."""
    async with parts.database.read() as session:
        is_needed = (await session.scalars(datasets.dataset_of_job(dataset_id))).one_or_none() is not None
    if not is_needed:
        await asyncio.to_thread(parts.storage.delete, key)


async def _same(
    session: AsyncSession, owner: str, upload: Upload, sha256: str
) -> Response[specs.Dataset] | None:
    """The newest version, where it came from the same bytes in the same way. One that failed because
    its workers were lost says nothing about the bytes: it is tried again as a new version."""
    newest = (await session.scalars(datasets.newest_version(owner, upload.name))).one_or_none()
    if newest is None or newest.sha256 != sha256 or newest.options != upload.options:
        return None
    if newest.format != upload.format:
        return None
    if newest.error is not None and newest.error.get("code") == JobErrorCode.WORKER_LOST:
        return None
    return reply_of(newest, HTTPStatus.OK)


async def delete_versions(parts: Parts, rows: list[str]) -> None:
    """Tombstones for these ids, then their bytes. Raises Conflict while a job or a batch prediction
    that is not terminal reads one of them; then none is deleted."""
    async with parts.database.write() as session:
        for dataset_id in sorted(rows):  # one order, so that two deletions cannot lock each other out
            row = (await session.scalars(datasets.lock_dataset(dataset_id))).one()
            users = list(await session.scalars(datasets.jobs_using(dataset_id)))
            users += list(await session.scalars(batch_predictions.reading_dataset(dataset_id)))
            if users:
                raise Conflict(
                    f"{row.name}@{row.version} is read by {', '.join(users)}; cancel them, or let them end.",
                    code="dataset_in_use",
                )
            row.state = datasets.DELETED
            row.revision += 1
        await session.commit()
    for dataset_id in rows:
        await asyncio.to_thread(_delete_bytes, parts, f"datasets/{dataset_id}")


def _delete_bytes(parts: Parts, prefix: str) -> None:
    for key in list(parts.storage.list(prefix)):
        parts.storage.delete(key)
