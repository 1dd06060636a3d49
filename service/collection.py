"""What becomes of what nobody needs any more: uploads and parts (their rows, then their bytes), exports of
collected weights, old messages to webhooks. Files without a row are `service.orphans`'."""

import asyncio

import structlog

from core.db.engines import AsyncDatabase
from core.db.models import BatchPrediction, utc_now
from core.db.statements import batch_predictions, checkpoints, uploads, webhooks
from core.export import stored
from core.storage import Storage
from core.storage.keys import batch_folder
from service.orphans import Orphans

#: Looked at, or collected, at once.
MAX_COLLECTED = 100

log = structlog.stdlib.get_logger()


async def collect(database: AsyncDatabase, storage: Storage, orphans: Orphans) -> None:
    await collect_expired(database, storage)
    await collect_strays(database, storage)
    await collect_parts(database, storage)
    await collect_exports(database, storage)
    await collect_deliveries(database)
    await orphans.collect()


async def collect_exports(database: AsyncDatabase, storage: Storage) -> None:
    """Of checkpoints that were collected, or whose job was deleted."""
    exported = sorted(await asyncio.to_thread(stored.exported, storage))
    for start in range(0, len(exported), MAX_COLLECTED):
        named = exported[start : start + MAX_COLLECTED]
        async with database.read() as session:
            ready = set(await session.scalars(checkpoints.ready_among(named)))
        for checkpoint_id in named:
            if checkpoint_id not in ready:
                await asyncio.to_thread(stored.forget, storage, checkpoint_id)
                log.info("export_collected", checkpoint=checkpoint_id)


async def collect_deliveries(database: AsyncDatabase) -> None:
    """Messages to webhooks that arrived, or died, long ago."""
    async with database.write() as session:
        await session.execute(webhooks.forget_ended(utc_now() - webhooks.KEPT))
        await session.commit()


async def collect_expired(database: AsyncDatabase, storage: Storage) -> None:
    """Two services that do it at once do no harm."""
    async with database.read() as session:
        expired = list(await session.scalars(uploads.expired(utc_now(), MAX_COLLECTED)))
    for upload_id in expired:
        if await remove_upload(database, storage, upload_id, only_expired=True):
            log.info("upload_collected", upload=upload_id)


async def remove_upload(
    database: AsyncDatabase, storage: Storage, upload_id: str, *, only_expired: bool
) -> bool:
    """False where what has not ended reads it, or where another piece has come since."""
    async with database.write() as session:
        row = (await session.scalars(uploads.lock_upload(upload_id))).one_or_none()
        if row is None or (only_expired and row.expires_at > utc_now()):
            return False
        # After the lock: a job that names the upload locks it too before it is written.
        used = (await session.execute(uploads.read_by_jobs())).all()
        if any(upload_id in (upload_ids or ()) for _, upload_ids in used):
            return False
        if (await session.scalars(batch_predictions.reading_upload(upload_id))).first() is not None:
            return False
        await session.execute(uploads.forget_pieces(upload_id))
        await session.execute(uploads.delete_upload(upload_id))
        await session.commit()
    await asyncio.to_thread(_delete_all, storage, f"uploads/{upload_id}")
    return True


async def collect_strays(database: AsyncDatabase, storage: Storage) -> None:
    """Bytes of uploads without a row: a service died while it removed them, or a piece came in meanwhile. A
    row is written before the first of its bytes, so that none of them is only early."""
    stored_ids = sorted({key.split("/")[1] for key in await asyncio.to_thread(_keys, storage, "uploads")})
    for start in range(0, len(stored_ids), MAX_COLLECTED):
        some = stored_ids[start : start + MAX_COLLECTED]
        async with database.read() as session:
            known = set(await session.scalars(uploads.ids_among(some)))
        for upload_id in some:
            if upload_id not in known:
                await asyncio.to_thread(_delete_all, storage, f"uploads/{upload_id}")
                log.info("stray_upload_collected", upload=upload_id)


async def collect_parts(database: AsyncDatabase, storage: Storage) -> None:
    """Of batch predictions that have ended: whatever lies in storage beside their two files, whoever left it
    there. Two services that do it at once do no harm."""
    async with database.read() as session:
        ended = list(await session.scalars(batch_predictions.uncleared(MAX_COLLECTED)))
    for row in ended:
        await asyncio.to_thread(_delete_all, storage, batch_folder(row.id), _results_of(row))
        async with database.write() as session:
            await session.execute(batch_predictions.forget_parts(row.id))
            await session.execute(batch_predictions.clear(row.id))
            await session.commit()


def _results_of(row: BatchPrediction) -> frozenset[str]:
    return frozenset(file["key"] for file in (row.results or {}).values())


def _keys(storage: Storage, prefix: str) -> list[str]:
    return list(storage.list(prefix))


def _delete_all(storage: Storage, prefix: str, kept: frozenset[str] = frozenset()) -> None:
    for key in list(storage.list(prefix)):
        if key not in kept:
            storage.delete(key)
