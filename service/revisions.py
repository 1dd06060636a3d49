"""The revisions of the rows that somebody watches, asked for ten times a second while anybody does.

In SQLite the rows of an index are some microseconds away; by way of the async driver's thread each query
hands the interpreter over a dozen times, which took an eighth of the speed of a training beside it.
"""

from collections.abc import Callable

from sqlalchemy import Select
from sqlalchemy.exc import OperationalError

from core.db.engines import AsyncDatabase, Database, is_in_process, open_database

#: On the event loop nobody waits for a lock.
BUSY_TIMEOUT_S = 0.0

#: What to ask for rows by their ids.
Query = Callable[[list[str]], Select[str, int]]


class Revisions:
    """`near` answers on the event loop; without it `database` does, which waits elsewhere."""

    def __init__(self, database: AsyncDatabase, near: Database | None, query: Query) -> None:
        self._database, self._near, self._query = database, near, query

    async def __call__(self, ids: list[str]) -> dict[str, int]:
        if self._near is not None:
            try:
                with self._near.read() as session:
                    return dict(session.execute(self._query(ids)).all())
            except OperationalError:
                pass  # locked at the moment, or gone: the other way waits, and says what is wrong
        async with self._database.read() as session:
            return dict((await session.execute(self._query(ids))).all())


def open_near(url: str) -> Database | None:
    return open_database(url, busy_timeout_s=BUSY_TIMEOUT_S) if is_in_process(url) else None
