"""An upload on its way in: spooled to a local file in pieces, off the event loop, hashed as it goes."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import structlog

from core.errors import Malformed, Unavailable
from core.settings import Settings

PIECE_BYTES = 1024 * 1024

#: A piece that takes longer than so many chunk timeouts comes too slowly to be worth a connection.
PIECE_TIMEOUTS = 10

#: How many bytes are written between two looks at the free space.
LOOK_EVERY_BYTES = 64 * PIECE_BYTES

log = structlog.stdlib.get_logger()


@dataclass(frozen=True)
class Spooled:
    """`broken` says how a body ended before its end, where that is not raised."""

    path: Path
    size_bytes: int
    sha256: str
    broken: Malformed | None = None


async def spool(
    chunks: AsyncIterable[bytes], settings: Settings, *, announced: int = 0, keeps_broken: bool = False
) -> Spooled:
    """Takes all of it or leaves nothing behind; with `keeps_broken` what had come of a body that broke off,
    or grew too slow, is a spool file too. Raises Unavailable where the disk has too little free."""
    folder = spool_folder(settings.scratch())
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(require_free, folder, settings.min_free_bytes + announced)
    path = folder / f"{uuid4().hex}.part"
    digest = hashlib.sha256()
    try:
        size_bytes, broken = await _write(chunks, path, digest, settings)
        if broken is not None and not keeps_broken:
            raise broken
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Spooled(path, size_bytes, digest.hexdigest(), broken)


async def _write(
    chunks: AsyncIterable[bytes], path: Path, digest: "hashlib._Hash", settings: Settings
) -> tuple[int, Malformed | None]:
    """How many bytes came, and how they ended where that was no proper end."""
    size_bytes = 0
    looked_at = 0
    broken: Malformed | None = None
    file = await asyncio.to_thread(path.open, "xb")
    try:
        piece = bytearray()
        started = time.monotonic()
        try:
            async for chunk in chunks:
                piece += chunk
                _require_pace(time.monotonic() - started, settings)
                if len(piece) >= PIECE_BYTES:
                    size_bytes += len(piece)
                    await asyncio.to_thread(_take, file, digest, piece)
                    piece = bytearray()
                    started = time.monotonic()
                if size_bytes - looked_at >= LOOK_EVERY_BYTES:
                    looked_at = size_bytes
                    await asyncio.to_thread(require_free, path.parent, settings.min_free_bytes)
        except Malformed as error:
            broken = error
        size_bytes += len(piece)
        await asyncio.to_thread(_take, file, digest, piece)
    finally:
        await asyncio.to_thread(file.close)
    return size_bytes, broken


def _require_pace(spent_s: float, settings: Settings) -> None:
    """A body that trickles never stands still, and would hold its connection for ever."""
    limit_s = PIECE_TIMEOUTS * settings.chunk_timeout_s
    if spent_s > limit_s:
        raise Malformed(
            f"The upload sent less than {PIECE_BYTES} bytes in {limit_s:g} s; send it again.",
            code="body_timeout",
        )


def _take(file: BinaryIO, digest: "hashlib._Hash", piece: bytearray) -> None:
    file.write(piece)
    digest.update(piece)


def require_free(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Unavailable(
            f"The disk has {free} bytes free and this upload needs {needed}; delete what is not needed, "
            "then send it again.",
            code="storage_full",
            retry_after_s=60,
        )


def spool_folder(scratch: Path) -> Path:
    return scratch / "spool"


def remove_abandoned(scratch: Path, older_than_s: float) -> None:
    """Files that a killed service left; one that is being written has a fresh time."""
    for path in spool_folder(scratch).glob("*.part*"):
        try:
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                log.info("abandoned_upload_removed", file=path.name)
        except FileNotFoundError:  # somebody else was quicker
            continue
