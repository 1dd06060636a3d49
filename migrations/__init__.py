"""The schema's history: Alembic revisions, and the one way to bring a database to the newest of them."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from core.db.engines import open_database

#: Any fixed number: whoever holds this advisory lock on a PostgreSQL database is migrating it.
LOCK_KEY = 0x4D4F_4459_4152_44


def head() -> str:
    """The newest revision in this folder."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def revisions() -> frozenset[str]:
    """All that this version knows."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def current(url: str) -> str | None:
    """The revision a database is at; None where it has no tables of ours."""
    database = open_database(url)
    try:
        with database.engine.connect() as connection:
            return _revision_of(connection)
    finally:
        database.close()


def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring a database up to `revision`; returns the revision before and after.

    All of it is one transaction. Several may start at once, by any number of processes: one migrates,
    the others wait and find nothing to do.
    """
    with _alone(url) as connection:
        before = _revision_of(connection)
        command.upgrade(_config(connection), revision)
        return before, _revision_of(connection)


def downgrade(url: str, revision: str) -> None:
    """Take a database back to `revision` (`base` is none at all). What the newer tables held is lost."""
    with _alone(url) as connection:
        command.downgrade(_config(connection), revision)


def draft(url: str, message: str) -> Path:
    """Write a new revision from what the tables in `core.db.models` have and the database at `url` lacks."""
    with _alone(url) as connection:
        number = f"{len(list(_scripts().walk_revisions())) + 1:04}"
        script = command.revision(_config(connection), message=message, autogenerate=True, rev_id=number)
        assert script is not None
        assert not isinstance(script, list)
        return Path(script.path)


def is_compared(_item: object, name: str | None, kind: str, _is_reflected: bool, _other: object) -> bool:
    """Whether Alembic can tell what a database has from what the tables say. Of an index SQLite tells the
    columns and not their direction; that the queries use this one is tested instead."""
    return not (kind == "index" and name == "ix_jobs_claim")


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _alone(url: str) -> Iterator[Connection]:
    """A connection in a transaction that no other migration runs beside; committed at the end."""
    database = open_database(url)
    try:
        if database.engine.dialect.name == "sqlite":
            with _file_lock(database.engine.url.database), database.engine.connect() as connection:
                # Rebuilding a table (SQLite's way to alter one) would cascade into those that refer to it.
                # The switch is ignored inside a transaction, so it comes before SQLAlchemy's BEGIN.
                _sqlite_foreign_keys(connection, is_on=False)
                with connection.execution_options(begin="IMMEDIATE").begin():
                    yield connection
                    _refuse_dangling(connection)
                _sqlite_foreign_keys(connection, is_on=True)
        else:
            with database.engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
                yield connection
    finally:
        database.close()


@contextmanager
def _file_lock(path: str | None) -> Iterator[None]:
    """Held before the database file is opened: switching a new file to WAL takes no busy timeout."""
    if path in (None, "", ":memory:"):
        yield
        return
    with Path(f"{path}.migrating").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sqlite_foreign_keys(connection: Connection, *, is_on: bool) -> None:
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.execute(f"PRAGMA foreign_keys={'ON' if is_on else 'OFF'}")


def _refuse_dangling(connection: Connection) -> None:
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if dangling:
        raise RuntimeError(f"rolled back: the migration leaves rows that refer to nothing: {dangling[:5]}")
