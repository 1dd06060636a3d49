"""From a spooled upload to a dataset version: bytes into storage first, then the row, then the wake-up."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.db.models import Dataset, utc_now
from core.db.statements import datasets
from core.errors import Conflict
from modelyard.specs import JobErrorCode
from service.parts import Parts
from service.spool import Spooled
from service.sweep import DATA_POOL

#: Two uploads under one name at once may choose the same number: the later tries again.
TRIES = 5


@dataclass(frozen=True)
class Upload:
    """What the client said of the bytes. `filename` is a label, never a path."""

    name: str
    format: str
    options: Mapping[str, Any]
    filename: str


async def accept(parts: Parts, owner: str, upload: Upload, spooled: Spooled) -> tuple[Dataset, bool]:
    """The version that holds these bytes, and whether it is new. The spool file is gone afterwards."""
    async with parts.database.read() as session:
        same = await _same(session, owner, upload, spooled.sha256)
    if same is not None:
        await asyncio.to_thread(spooled.path.unlink)
        return same, False
    dataset_id = ids.dataset_id()
    key = f"datasets/{dataset_id}/source"
    try:
        await asyncio.to_thread(parts.storage.adopt, key, spooled.path)
        row, is_new = await _insert(parts, owner, upload, spooled, dataset_id, key)
    except BaseException:
        await asyncio.to_thread(_drop, parts, key, spooled)
        raise
    if is_new:
        parts.sweeper.poke(DATA_POOL)
    else:
        await asyncio.to_thread(parts.storage.delete, key)
    return row, is_new


async def _insert(
    parts: Parts, owner: str, upload: Upload, spooled: Spooled, dataset_id: str, key: str
) -> tuple[Dataset, bool]:
    for _ in range(TRIES):
        async with parts.database.write() as session:
            same = await _same(session, owner, upload, spooled.sha256)
            if same is not None:
                return same, False
            row = Dataset(
                id=dataset_id,
                owner=owner,
                name=upload.name,
                version=(await session.scalars(datasets.next_number(owner, upload.name))).one(),
                state="queued",
                format=upload.format,
                options=dict(upload.options),
                filename=upload.filename,
                source_key=key,
                bytes=spooled.size_bytes,
                sha256=spooled.sha256,
                created_at=utc_now(),
            )
            session.add(row)
            try:
                await session.commit()
            except IntegrityError:
                continue
            return row, True
    raise Conflict(
        f"Other uploads to {upload.name!r} were quicker {TRIES} times; send it again.",
        code="busy",
        retry_after_s=1,
    )


async def _same(session: AsyncSession, owner: str, upload: Upload, sha256: str) -> Dataset | None:
    """The newest version, where it came from the same bytes in the same way. One that failed because
    its workers were lost says nothing about the bytes: it is tried again as a new version."""
    newest = (await session.scalars(datasets.newest_version(owner, upload.name))).one_or_none()
    if newest is None or newest.sha256 != sha256 or newest.options != upload.options:
        return None
    if newest.format != upload.format:
        return None
    if newest.error is not None and newest.error.get("code") == JobErrorCode.WORKER_LOST:
        return None
    return newest


async def delete_versions(parts: Parts, rows: list[str]) -> None:
    """Tombstones for these ids, then their bytes. Raises Conflict while a job that is not terminal
    reads one of them; then none is deleted."""
    async with parts.database.write() as session:
        for dataset_id in sorted(rows):  # one order, so that two deletions cannot lock each other out
            row = (await session.scalars(datasets.lock_dataset(dataset_id))).one()
            users = list(await session.scalars(datasets.jobs_using(dataset_id)))
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


def _drop(parts: Parts, key: str, spooled: Spooled) -> None:
    parts.storage.delete(key)
    spooled.path.unlink(missing_ok=True)


def _delete_bytes(parts: Parts, prefix: str) -> None:
    for key in list(parts.storage.list(prefix)):
        parts.storage.delete(key)
