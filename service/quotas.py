"""How many things an owner may have at once: the owner's and not the key's, as another key gives no more."""

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.statements import quotas
from core.errors import TooMany
from service.parts import Parts

#: Work leaves the queue when a worker takes it, an upload goes when it is deleted: nobody knows when.
RETRY_S = 10


async def require_place(session: AsyncSession, parts: Parts, owner: str) -> None:
    """For one more job or batch prediction. Raises TooMany."""
    limit = parts.settings.max_queued
    waiting = (await session.scalars(quotas.count_queued_jobs(owner, limit))).one()
    if waiting < limit:
        waiting += (await session.scalars(quotas.count_queued_batches(owner, limit))).one()
    if waiting >= limit:
        raise TooMany(
            f"{limit} jobs and batch predictions of {owner} wait already, and no more may; cancel some, or "
            "wait until workers have taken some.",
            code="over_quota",
            retry_after_s=RETRY_S,
        )


async def require_upload_place(session: AsyncSession, parts: Parts, owner: str) -> None:
    """For one more upload. Raises TooMany."""
    limit = parts.settings.max_uploads
    if (await session.scalars(quotas.count_uploads(owner, limit))).one() >= limit:
        raise TooMany(
            f"{owner} has {limit} uploads, and may have no more; delete those that are no longer needed, or "
            "let them expire.",
            code="over_quota",
            retry_after_s=RETRY_S,
        )
