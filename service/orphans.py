"""Files without a row: what an attempt left that was ended between a file and the row that keeps it.

Files come before their rows, so one without a row may be about to have it: only what two looks in a row found
is removed, and nothing of an attempt that still owns its job or dataset.
"""

import asyncio
import re

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.engines import AsyncDatabase
from core.db.statements import orphans as statements
from core.storage import Storage

#: Ids that are looked for in one query.
AT_ONCE = 500

#: Nothing else in storage is looked at. A name that begins with a dot is half a copy.
_OF_A_JOB = re.compile(r"jobs/([^/]+)/(\d+)/\d+/\.?(?:weights|state)\.pt(?:\.\d+)?")
_OF_A_VERSION = re.compile(r"versions/([^/]+)/\.?manifest\.json(?:\.\d+)?")
_OF_A_DATASET = re.compile(r"datasets/([^/]+)/(\d+)/\.?(?:data\.arrow|manifest\.json)(?:\.\d+)?")

Keys = dict[str, re.Match[str]]

log = structlog.stdlib.get_logger()


class Orphans:
    """`collect` is a look, now and then; two services that do it at once do no harm."""

    def __init__(self, database: AsyncDatabase, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._seen: frozenset[str] = frozenset()

    async def collect(self) -> None:
        found = await find(self._database, self._storage)
        for key in sorted(found & self._seen):
            await asyncio.to_thread(self._storage.delete, key)
            log.info("orphan_collected", key=key)
        self._seen = found - self._seen


async def find(database: AsyncDatabase, storage: Storage) -> frozenset[str]:
    """Keys that no row keeps, and no attempt that runs may be about to."""
    found: set[str] = set()
    for prefix, pattern, kept in (
        ("jobs", _OF_A_JOB, _kept_of_jobs),
        ("versions", _OF_A_VERSION, _kept_of_versions),
        ("datasets", _OF_A_DATASET, _kept_of_datasets),
    ):
        keys = await asyncio.to_thread(_listed, storage, prefix, pattern)
        ids = sorted({match[1] for match in keys.values()})
        async with database.read() as session:
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                theirs = {key: match for key, match in keys.items() if match[1] in set(some)}
                found |= theirs.keys() - await kept(session, some, theirs)
    return frozenset(found)


def _listed(storage: Storage, prefix: str, pattern: re.Pattern[str]) -> Keys:
    return {key: match for key in storage.list(prefix) if (match := pattern.fullmatch(key))}


async def _kept_of_jobs(session: AsyncSession, ids: list[str], keys: Keys) -> set[str]:
    running = {(job_id, fence) for job_id, fence in await session.execute(statements.running_fences(ids))}
    rows = await session.execute(statements.kept_files(ids))
    kept = {key for pair in rows for key in pair}
    return kept | {key for key, match in keys.items() if (match[1], int(match[2])) in running}


async def _kept_of_versions(session: AsyncSession, ids: list[str], keys: Keys) -> set[str]:
    there = set(await session.scalars(statements.versions_among(ids)))
    return {key for key, match in keys.items() if match[1] in there}


async def _kept_of_datasets(session: AsyncSession, ids: list[str], keys: Keys) -> set[str]:
    fences = {(row_id, fence) for row_id, fence in await session.execute(statements.dataset_fences(ids))}
    return {key for key, match in keys.items() if (match[1], int(match[2])) in fences}
