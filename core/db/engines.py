"""Engines and sessions: async for the service, sync for workers. One URL serves both.

`read` sessions begin deferred, `write` sessions begin with the write lock: SQLite refuses to turn a
stale read into a write at once and without waiting, so who will write says so at BEGIN.
PostgreSQL knows no such word and both are the same there.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from core.db import outbox
from core.db.wal import is_alone_needed

BUSY_TIMEOUT_S = 30
POOL_SIZE = 10


@dataclass(frozen=True)
class Database:
    engine: Engine
    read: sessionmaker[Session]
    write: sessionmaker[Session]

    def close(self) -> None:
        self.engine.dispose()


@dataclass(frozen=True)
class AsyncDatabase:
    engine: AsyncEngine
    read: async_sessionmaker[AsyncSession]
    write: async_sessionmaker[AsyncSession]

    async def close(self) -> None:
        await self.engine.dispose()


outbox.listen()  # whoever writes through here what a webhook tells of, writes the message too


def open_database(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Database:
    engine = create_engine(_driver_url(url, is_async=False), **_options(url, busy_timeout_s))
    _prepare(engine, busy_timeout_s)
    return Database(
        engine,
        sessionmaker(engine, expire_on_commit=False),
        sessionmaker(engine.execution_options(begin="IMMEDIATE"), expire_on_commit=False),
    )


def open_async_database(url: str) -> AsyncDatabase:
    engine = create_async_engine(_driver_url(url, is_async=True), **_options(url))
    _prepare(engine.sync_engine)
    return AsyncDatabase(
        engine,
        async_sessionmaker(engine, expire_on_commit=False),
        async_sessionmaker(engine.execution_options(begin="IMMEDIATE"), expire_on_commit=False),
    )


def _driver_url(url: str, *, is_async: bool) -> str:
    parsed = make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            driver = "sqlite+aiosqlite" if is_async else "sqlite"
        case "postgresql" | "postgres":
            driver = "postgresql+psycopg"  # psycopg 3 speaks both
        case other:
            raise ValueError(f"MODELYARD_DATABASE_URL: expected sqlite:// or postgresql://, got {other}://")
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def _options(url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> dict[str, Any]:
    common = {"pool_size": POOL_SIZE, "hide_parameters": True}  # an error's text holds nothing of a request
    if is_in_process(url):
        return {**common, "connect_args": {"timeout": busy_timeout_s}, "max_overflow": 0}
    return {**common, "max_overflow": POOL_SIZE, "pool_pre_ping": True}


def is_in_process(url: str) -> bool:
    """Whether a query is a call of a library and not a message to a server."""
    return make_url(url).get_backend_name() == "sqlite"


def _prepare(engine: Engine, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see on_begin
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # an answered 202 survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        if is_alone_needed():
            cursor.execute("PRAGMA wal_autocheckpoint=0")
            cursor.execute(
                "PRAGMA journal_size_limit=0"
            )  # a log begun anew is cut: its size says what is new
        cursor.execute(f"PRAGMA busy_timeout={round(busy_timeout_s * 1000)}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")
