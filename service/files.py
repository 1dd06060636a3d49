"""Sending a stored file: in pieces, with Range and validators (RFC 9110)."""

import asyncio
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.response import Stream

from service.bodies import MIB, AnyRequest

PIECE_BYTES = MIB

#: What this address gives never changes; or it may with every request.
IMMUTABLE, REVALIDATED = "private, max-age=31536000, immutable", "private, no-cache"

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def send_file(
    request: AnyRequest,
    path: Path,
    *,
    sha256: str,
    filename: str,
    media_type: str = "application/octet-stream",
    caching: str = IMMUTABLE,
) -> Response[bytes] | Stream:
    """200 with all of it, 206 with the one range asked for, 304 where the client has it, 416 for a range
    beyond the end. Several ranges at once are answered with all of it, as the RFC allows."""
    size = path.stat().st_size
    etag = f'"{sha256}"'
    headers = {
        "content-type": media_type,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Cache-Control": caching,
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    start, stop = 0, size
    status = HTTPStatus.OK
    asked = request.headers.get("range")
    if asked is not None and request.headers.get("if-range", etag) == etag:
        wanted = parse_range(asked, size)
        if wanted is not None:
            start, stop = wanted
            if start >= stop:
                raise HTTPException(
                    f"The file has {size} bytes; ask for a range within it.",
                    status_code=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    headers={"Content-Range": f"bytes */{size}"},
                )
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            status = HTTPStatus.PARTIAL_CONTENT
    headers["Content-Length"] = str(stop - start)
    return Stream(_pieces(path, start, stop), status_code=status, headers=headers)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """[start, stop) of a single byte range, empty where it lies beyond the end; None where it is no range
    that we serve, and then all is sent."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        return max(0, size - int(last)), size
    if last != "" and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def matches(header: str | None, etag: str) -> bool:
    """If-None-Match: a list of tags, or `*`; compared weakly."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


async def _pieces(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        await asyncio.to_thread(file.seek, start)
        while start < stop:
            piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, stop - start))
            if not piece:
                return
            start += len(piece)
            yield piece
    finally:
        file.close()  # at once: a client that left cancels whatever would be waited for here
