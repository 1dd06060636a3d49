"""What an owner may keep: bytes of uploads, as announced, and of datasets, as they were sent.

Two requests at once may both find the last room and go beyond it by one of them; the next finds none.
"""

from collections.abc import AsyncIterable, AsyncIterator

from core.db.statements import datasets, uploads
from core.errors import TooMany
from service.parts import Parts

#: Room comes from deleting, not from waiting.
RETRY_AFTER_S = 3600


async def require_quota(parts: Parts, owner: str, size_bytes: int = 0) -> int:
    """How many bytes have room. Raises TooMany where so many more have none."""
    async with parts.database.read() as session:
        kept = await session.scalar(uploads.kept_bytes(owner)) or 0
        kept += await session.scalar(datasets.kept_bytes(owner)) or 0
    left = parts.settings.max_owner_bytes - kept
    if size_bytes > left:
        raise _over(parts, f"they have {kept}, and {size_bytes} more came")
    return left


async def within_quota(parts: Parts, coming: AsyncIterable[bytes], left: int) -> AsyncIterator[bytes]:
    """The same chunks. Raises TooMany with the first that has no room, for a body that did not say how
    long it is."""
    async for chunk in coming:
        left -= len(chunk)
        if left < 0:
            raise _over(parts, "what came has no room")
        yield chunk


def _over(parts: Parts, came: str) -> TooMany:
    return TooMany(
        f"Your uploads and datasets may have {parts.settings.max_owner_bytes} bytes together; {came}. "
        "Delete what you don't need; the operator may raise MODELYARD_MAX_OWNER_BYTES.",
        code="over_quota",
        retry_after_s=RETRY_AFTER_S,
    )
