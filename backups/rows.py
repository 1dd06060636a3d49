"""Rows out of one database and into another, of either kind. Both have the tables of `core.db.models`.

JSON goes through as text: decoding it would lose the difference between no value and `null`.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from typing import cast as cast_type

import psycopg
from sqlalchemy import (
    JSON,
    Connection,
    Select,
    Table,
    Text,
    cast,
    column,
    delete,
    insert,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import make_url

import migrations
from backups import Refused
from core.db.engines import Database, is_in_process, open_database
from core.db.models import Base, SchemaFloor

BATCH = 5_000
#: Pages of an SQLite database copied at once.
PAGES = 4_096

#: Is told of rows that went by.
Told = Callable[[int], None]


def snapshot(url: str, target: Path, told: Told) -> None:
    """The database at `url`, as it is at one moment, as an SQLite file of its own; others go on writing."""
    if is_in_process(url):
        with (
            closing(sqlite3.connect(database_path(url))) as source,
            closing(sqlite3.connect(target)) as copied,
        ):
            # With a transaction open, the copy is of one moment however long it takes.
            source.isolation_level = None
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM alembic_version").fetchone()
            source.backup(copied, pages=PAGES)
    else:
        migrations.upgrade(_sqlite_url(target))
        there, here = open_database(url), open_database(_sqlite_url(target))
        try:
            with _frozen(there) as source_rows, here.engine.begin() as target_rows:
                target_rows.execute(delete(SchemaFloor))  # it comes with the rows
                copy_rows(source_rows, target_rows, told)
        finally:
            there.close()
            here.close()
    make_self_contained(target)


def replace(url: str, source: Path, told: Told) -> None:
    """All rows of the database at `url`, which must have the newest schema, by those of an SQLite file. One
    transaction: readers see the old rows or the new ones."""
    if is_in_process(url):
        with (
            closing(sqlite3.connect(source)) as restored,
            closing(sqlite3.connect(database_path(url))) as target,
        ):
            restored.backup(target)
        return
    here, there = open_database(_sqlite_url(source)), open_database(url)
    try:
        with here.engine.connect() as source_rows, there.engine.begin() as target_rows:
            names = ", ".join(_quoted(target_rows, one) for one in Base.metadata.sorted_tables)
            target_rows.execute(text(f"TRUNCATE {names}"))
            copy_rows(source_rows, target_rows, told)
    finally:
        here.close()
        there.close()


def copy_rows(source: Connection, target: Connection, told: Told) -> None:
    for one in Base.metadata.sorted_tables:
        parts = source.execution_options(yield_per=BATCH).execute(_select(one)).partitions()
        write = _copy_in if target.dialect.name == "postgresql" else _insert
        for count in write(target, one, parts):
            told(count)


def table_with_rows(connection: Connection) -> str | None:
    """The first of the tables that are there, whatever their revision, with a row of a user in it."""
    ours = set(Base.metadata.tables) - {SchemaFloor.__tablename__}
    for name in sorted(ours & set(inspect(connection).get_table_names())):
        if connection.execute(select(1).select_from(table(name)).limit(1)).first() is not None:
            return name
    return None


def require_sound(path: Path) -> None:
    """Raises Refused for a damaged SQLite file."""
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise Refused(
            f"the database is damaged: {found}. Take its last good backup, or try `.recover` of sqlite3."
        )


def make_self_contained(path: Path) -> None:
    """An SQLite file whose last writes are not in another one beside it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def database_path(url: str) -> str:
    """Of an SQLite database."""
    path = make_url(url).database
    if not path or path == ":memory:":
        raise Refused(f"MODELYARD_DATABASE_URL: expected the path of a file, got {url}")
    return path


def _frozen(database: Database) -> Any:
    """A connection that reads all rows as they were at one moment."""
    return database.engine.connect().execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def _select(one: Table) -> Select[*tuple[Any, ...]]:
    return select(*(cast(each, Text) if isinstance(each.type, JSON) else each for each in one.columns))


def _insert(target: Connection, one: Table, parts: Any) -> Iterator[int]:
    """Into SQLite, where JSON is text."""
    columns = [
        column(each.name, Text() if isinstance(each.type, JSON) else each.type) for each in one.columns
    ]
    names = [each.name for each in one.columns]
    statement = insert(table(one.name, *columns))
    for rows in parts:
        target.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
        yield len(rows)


def _copy_in(target: Connection, one: Table, parts: Any) -> Iterator[int]:
    """Into PostgreSQL by COPY, many times as fast as INSERT."""
    raw: psycopg.Connection = cast_type(Any, target.connection.driver_connection)
    preparer = target.dialect.identifier_preparer
    names = ", ".join(preparer.quote(each.name) for each in one.columns)
    with raw.cursor() as cursor, cursor.copy(f"COPY {_quoted(target, one)} ({names}) FROM STDIN") as copying:
        for rows in parts:
            for row in rows:
                copying.write_row(row)
            yield len(rows)


def _quoted(connection: Connection, one: Table) -> str:
    return connection.dialect.identifier_preparer.format_table(one)


def _sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"
