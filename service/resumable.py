"""Resumable uploads: created, filled piece by piece, complete, collected.

A piece is durable in storage before the row's offset says so, and the offset moves by a conditional update:
of two who bring the same place one is told where the upload really is. The whole is put together once all
has come.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.db.models import Upload, UploadPiece, utc_now
from core.db.statements import uploads
from core.errors import Conflict, NotFound, TooLarge
from core.storage import Storage
from core.uploads import upload_key
from modelyard import specs
from service.collection import remove_upload
from service.parts import Parts
from service.quotas import require_upload_place
from service.spool import PIECE_BYTES, Spooled, require_free, spool, spool_folder
from service.storage_quota import require_quota

#: From the last piece that came; a job that has not ended keeps what it reads beyond it.
KEPT = timedelta(hours=24)


async def create(parts: Parts, owner: str, asked: specs.UploadRequest) -> Upload:
    limit = parts.settings.max_upload_bytes
    if asked.length > limit:
        raise TooLarge(f"An upload has at most {limit} bytes; {asked.length} were announced.")
    await asyncio.to_thread(_require_room, parts, asked.length)
    await require_quota(parts, owner, asked.length)
    now = utc_now()
    row = Upload(
        id=ids.upload_id(),
        owner=owner,
        filename=asked.filename,
        length=asked.length,
        offset=0,
        created_at=now,
        expires_at=now + KEPT,
    )
    async with parts.database.write() as session:
        await require_upload_place(session, parts, owner)
        session.add(row)
        await session.commit()
    return row


async def find(parts: Parts, owner: str, upload_id: str) -> Upload:
    """Raises NotFound, for another owner's too."""
    async with parts.database.read() as session:
        row = await find_upload(session, owner, upload_id)
    if row is None:
        raise NotFound(f"You have no upload {upload_id[:100]}; it may have expired. POST /v1/uploads.")
    return row


async def find_upload(session: AsyncSession, owner: str, upload_id: str) -> Upload | None:
    """Complete where its `sha256` is known."""
    return (await session.scalars(uploads.get_upload(owner, upload_id))).one_or_none()


async def receive(parts: Parts, row: Upload, offset: int, chunks: AsyncIterable[bytes]) -> int:
    """Adds what comes at `offset`; the offset after it. What had come when a connection broke stays, and
    then Malformed is raised. Raises Conflict with the true offset where the upload stands elsewhere."""
    if offset != row.offset:
        raise _elsewhere(row.id, row.offset, offset)
    spooled = await spool(chunks, parts.settings, keeps_broken=True)
    try:
        if spooled.size_bytes:
            offset = await _add(parts, row, offset, spooled)
    finally:
        spooled.path.unlink(missing_ok=True)
    if spooled.broken is not None:
        raise spooled.broken
    if offset == row.length:
        await complete(parts, row)
    return offset


async def complete(parts: Parts, row: Upload) -> str:
    """Puts the pieces of a full upload together, if nobody has; its SHA-256. May be repeated, also where
    a service died half-way. Who asks while it is under way waits for it: two would take twice the disk."""
    if row.sha256 is not None:
        return row.sha256
    return await parts.joins.ask(row.id, lambda: _complete(parts, row))


async def _complete(parts: Parts, row: Upload) -> str:
    async with parts.database.read() as session:
        pieces = list(await session.scalars(uploads.pieces_of(row.id)))
    try:
        sha256 = await asyncio.to_thread(_join, parts, row, [piece.key for piece in pieces])
    except FileNotFoundError:
        # Somebody else was quicker and has removed the pieces since.
        row = await find(parts, row.owner, row.id)
        if row.sha256 is None:
            raise
        return row.sha256
    async with parts.database.write() as session:
        await session.execute(uploads.complete(row.id, sha256))
        await session.execute(uploads.forget_pieces(row.id))
        await session.commit()
    await asyncio.to_thread(_delete, parts.storage, [piece.key for piece in pieces])
    return sha256


async def remove(parts: Parts, owner: str, upload_id: str) -> None:
    """Raises NotFound, or Conflict while a job or a batch prediction that has not ended reads it."""
    row = await find(parts, owner, upload_id)
    if not await remove_upload(parts.database, parts.storage, row.id, only_expired=False):
        raise Conflict(
            f"{row.id} is read by a job or a batch prediction that has not ended; cancel it first.",
            code="upload_in_use",
        )


async def _add(parts: Parts, row: Upload, offset: int, spooled: Spooled) -> int:
    """The piece into storage, then the offset. Raises Conflict where another piece came first."""
    key = f"uploads/{row.id}/pieces/{offset}-{uuid4().hex}"
    await asyncio.to_thread(parts.storage.adopt, key, spooled.path)
    to = offset + spooled.size_bytes
    is_taken = False
    try:
        async with parts.database.write() as session:
            moved = await session.scalar(uploads.advance(row.id, offset, to, utc_now() + KEPT))
            if moved is not None:
                session.add(UploadPiece(upload_id=row.id, offset=offset, size=spooled.size_bytes, key=key))
                await session.commit()
                is_taken = True
    finally:
        if not is_taken:
            await asyncio.to_thread(parts.storage.delete, key)
    if not is_taken:
        now = await find(parts, row.owner, row.id)
        raise _elsewhere(row.id, now.offset, offset)
    return to


def _join(parts: Parts, row: Upload, keys: list[str]) -> str:
    """The pieces as one file in storage. Raises FileNotFoundError where one is gone."""
    _require_room(parts, row.length)
    path = spool_folder(parts.settings.scratch()) / f"{uuid4().hex}.part"
    digest = hashlib.sha256()
    try:
        with path.open("xb") as whole:
            for key in keys:
                with parts.storage.fetch(key).open("rb") as piece:
                    while data := piece.read(PIECE_BYTES):
                        digest.update(data)
                        whole.write(data)
        if path.stat().st_size != row.length:
            raise FileNotFoundError(f"the pieces of {row.id}")
        parts.storage.adopt(upload_key(row.id), path)
    finally:
        path.unlink(missing_ok=True)
    return digest.hexdigest()


def _require_room(parts: Parts, length: int) -> None:
    folder = spool_folder(parts.settings.scratch())
    folder.mkdir(parents=True, exist_ok=True)
    require_free(Path(folder), parts.settings.min_free_bytes + length)


def _delete(storage: Storage, keys: list[str]) -> None:
    for key in keys:
        storage.delete(key)


def _elsewhere(upload_id: str, true: int, came: int) -> Conflict:
    return Conflict(
        f"{upload_id} stands at {true}, the piece is for {came}; send it from Upload-Offset {true}.",
        code="upload_offset",
        headers={"Upload-Offset": str(true)},
    )
