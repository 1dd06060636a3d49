"""What an owner may have waiting at once. It is the owner's and not the key's: another key gives no more."""

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.statements import quotas
from core.errors import TooMany
from service.parts import Parts

#: Work leaves the queue when a worker takes it: nobody knows when.
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
