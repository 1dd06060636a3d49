"""What a complete upload is used for: a dataset of its bytes, or a file that a job reads."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import msgspec
from litestar import Response
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Upload as Row
from core.db.statements import uploads as statements
from core.errors import Invalid
from core.faults import fault
from core.uploads import upload_key, uploads_of
from modelyard.specs import DatasetUpload, ProblemError
from modelyard.specs.datasets import Format
from service import resumable
from service.idempotency import Once
from service.parts import Parts
from service.spool import Spooled, require_free, spool_folder
from service.storage_quota import require_quota
from service.uploads import Upload, accept

#: A spec has no room for more components that name one.
MAX_NAMED = 1000
#: So much of a check's address space may be files.
_MAPPED = 0.75


async def accept_upload(parts: Parts, owner: str, asked: DatasetUpload, once: Once) -> Response[Any]:
    """202 and a new version, or 200 and the newest one where it holds these bytes. The upload stays, so that
    it may be named again. Raises Invalid where it is unknown or not complete."""
    formats = get_args(Format)
    if asked.format not in formats:
        message = f"format: expected one of {', '.join(formats)}, got {asked.format[:100]!r}"
        raise Invalid(f"{message}.", errors=[ProblemError("/format", "invalid", message)])
    async with parts.database.read() as session:
        row = await resumable.find_upload(session, owner, asked.upload)
    if (wrong := wrong_upload(row, asked.upload)) is not None or row is None:
        one = ProblemError("/upload", "unknown_upload", f"{wrong}.")
        raise Invalid(f"{wrong}.", code="unknown_upload", errors=[one])
    await require_quota(parts, owner)  # the upload itself is counted already
    spooled = Spooled(await asyncio.to_thread(_twin, parts, row), row.length, str(row.sha256))
    upload = Upload(asked.name, asked.format, asked.options, row.filename)
    return await accept(parts, owner, upload, spooled, once)


def names_upload(body: bytes) -> bool:
    """Whether the JSON of a new dataset speaks of an upload, and not of a source; what else is wrong with it
    is told later. Raises Invalid where it speaks of both, or of neither."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except (msgspec.DecodeError, RecursionError):
        return False
    given = [name for name in _Kind.__struct_fields__ if getattr(kind, name) is not msgspec.UNSET]
    if len(given) != 1:
        came = "both" if given else "neither"
        message = (
            f"Expected exactly one of upload and source; {came} came. Name the one that the dataset is of."
        )
        raise Invalid(message, errors=[ProblemError("", "invalid", message)])
    return given == ["upload"]


class _Kind(msgspec.Struct):
    upload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    source: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


async def named_uploads(
    parts: Parts, owner: str, named: Mapping[str, str]
) -> tuple[dict[str, str], list[ProblemError]]:
    """Local paths, by id, of the uploads that a spec names (pointer to id), and what is wrong with others.
    Past what the helper's child can map there is no path."""
    wanted = list(dict.fromkeys(named.values()))[:MAX_NAMED]
    if not wanted:
        return {}, []
    async with parts.database.read() as session:
        rows = {row.id: row for row in await session.scalars(statements.get_uploads(owner, wanted))}
    missing: list[ProblemError] = []
    for pointer, upload_id in named.items():
        if upload_id in wanted and (wrong := wrong_upload(rows.get(upload_id), upload_id)) is not None:
            fault(missing, pointer, "unknown_upload", f"{wrong}.")
    return await asyncio.to_thread(paths_of, parts, list(rows.values())), missing


def paths_of(parts: Parts, rows: list[Row]) -> dict[str, str]:
    """Of complete uploads that together fit into a check, by id; blocking."""
    paths, left_bytes = {}, int(parts.settings.plan_memory_bytes * _MAPPED)
    for row in rows:
        if row.sha256 is not None and row.length <= left_bytes:
            with contextlib.suppress(FileNotFoundError):  # it has just been deleted
                paths[row.id] = str(parts.storage.fetch(upload_key(row.id)))
                left_bytes -= row.length
    return paths


async def require_uploads(session: AsyncSession, owner: str, spec: dict[str, Any]) -> None:
    """Locks what the job reads until the transaction ends. Raises Invalid with a pointer to each upload that
    is unknown or not complete."""
    errors: list[ProblemError] = []
    for pointer, upload_id in sorted(uploads_of(spec).items(), key=lambda named: named[1]):
        row = (await session.scalars(statements.lock_upload(upload_id))).one_or_none()
        wrong = wrong_upload(row if row is not None and row.owner == owner else None, upload_id)
        if wrong is not None:
            fault(errors, pointer, "unknown_upload", f"{wrong}.")
    if errors:
        raise Invalid(f"The spec can't run: {errors[0].message}", errors=errors)


def wrong_upload(row: Row | None, upload_id: str) -> str | None:
    if row is None:
        return f"you have no upload {upload_id[:100]!r}; it may have expired: send the bytes again"
    if row.sha256 is None:
        return f"{row.id} is not complete: {row.offset} of {row.length} bytes have come; send the rest"
    return None


def _twin(parts: Parts, row: Row) -> Path:
    """A dataset has a file of its own: neither goes with the other. What is stored never changes, so that on
    one file system a second name for the same bytes is enough."""
    folder = spool_folder(parts.settings.scratch())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid4().hex}.part"
    stored = parts.storage.fetch(upload_key(row.id))
    with contextlib.suppress(OSError):  # another file system, or one without links
        path.hardlink_to(stored)
        os.utime(path)  # what is old in that folder was abandoned
        return path
    require_free(folder, parts.settings.min_free_bytes + row.length)
    try:
        shutil.copyfile(stored, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
