"""From a named source to a dataset version: a row that a worker fetches, and the wake-up."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from sqlalchemy.ext.asyncio import AsyncSession

from core import ids
from core.data.sources import complete
from core.db.models import Dataset, utc_now
from core.db.statements import datasets
from modelyard import specs
from modelyard.specs import DatasetSource
from service.idempotency import Once
from service.parts import Parts
from service.sweep import DATA_POOL
from service.uploads import insert, reply_of


async def accept_source(parts: Parts, owner: str, asked: DatasetSource, once: Once) -> Response[Any]:
    """202 and a new version that a worker will fetch, or 200 and the newest one where it came, or comes,
    from the same source. Raises Invalid where there is no such source."""
    source = msgspec.to_builtins(complete(asked.source))
    row = Dataset(
        id=ids.dataset_id(),
        owner=owner,
        name=asked.name,
        state="queued",
        format="auto",
        options={},
        filename=asked.source.dataset,
        source=source,
        source_key="",
        bytes=0,
        sha256="",
        created_at=utc_now(),
    )
    reply = await insert(parts, row, once, lambda session: _same(session, owner, asked.name, source))
    parts.sweeper.poke(DATA_POOL)
    return reply


async def _same(
    session: AsyncSession, owner: str, name: str, source: dict[str, Any]
) -> Response[specs.Dataset] | None:
    """The newest version, where it is of the same source; one that failed is tried again."""
    newest = (await session.scalars(datasets.newest_version(owner, name))).one_or_none()
    if newest is None or newest.source != source or newest.state == "failed":
        return None
    return reply_of(newest, HTTPStatus.OK)
