"""Migrations against a real SQLite and a real PostgreSQL."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import alembic.op
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from core.db.engines import open_database
from core.db.models import REVISION, AliasMove, Base, Version
from migrations import current, downgrade, head, is_compared, upgrade

ROOT = Path(__file__).resolve().parents[2]


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_upgrade_makes_exactly_the_tables_of_the_models(database_url: str) -> None:
    upgrade(database_url)

    database = open_database(database_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_compared}
        )
        differences = compare_metadata(context, Base.metadata)
    database.close()

    assert differences == []
    assert current(database_url) == head()


def test_up_down_up_comes_back_to_the_same_tables(database_url: str) -> None:
    database = open_database(database_url)

    assert upgrade(database_url) == (None, head())
    first = tables(database.engine)
    downgrade(database_url, "base")
    between = tables(database.engine)
    assert upgrade(database_url) == (None, head())
    second = tables(database.engine)
    database.close()

    assert set(Base.metadata.tables) <= first
    assert between == {"alembic_version"}
    assert second == first


def test_the_code_knows_which_migration_its_tables_are_of() -> None:
    assert head() == REVISION


def test_a_second_upgrade_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    assert upgrade(database_url) == (head(), head())


def test_four_migrations_started_at_once_all_succeed(database_url: str) -> None:
    environment = {**os.environ, "MODELYARD_DATABASE_URL": database_url}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "migrations"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], said
    assert sum("was empty" in words for words in said) == 1, said
    assert sum("already" in words for words in said) == 3, said
    assert current(database_url) == head()


def test_a_migration_that_breaks_leaves_the_database_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alembic.op.create_table

    def breaks_at_jobs(name: str, *columns: object, **options: object) -> object:
        if name == "jobs":
            raise OSError("the machine ran out of something")
        return real(name, *columns, **options)

    monkeypatch.setattr(alembic.op, "create_table", breaks_at_jobs)
    with pytest.raises(OSError, match="ran out"):
        upgrade(database_url)

    database = open_database(database_url)
    assert tables(database.engine) == set()
    database.close()


def test_a_row_that_would_refer_to_nothing_rolls_a_sqlite_migration_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dangling.db'}"
    upgrade(url)
    database = open_database(url)
    with database.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("INSERT INTO events VALUES ('job_gone', 1, 'state', '2026-01-01 00:00:00', '{}')")
    database.close()

    with pytest.raises(RuntimeError, match="refer to nothing"):
        upgrade(url)


def test_the_database_enforces_foreign_keys_after_a_migration(database_url: str) -> None:
    upgrade(database_url)
    database = open_database(database_url)
    with database.engine.connect() as connection, pytest.raises(Exception, match=r"(?i)foreign key"):
        connection.execute(
            text("INSERT INTO events VALUES ('job_gone', 1, 'state', '2026-01-01 00:00:00+00:00', '{}')")
        )
    database.close()


def test_the_history_of_an_alias_that_was_there_begins_with_where_it_stands(database_url: str) -> None:
    upgrade(database_url, "0003")
    database = open_database(database_url)
    with database.write() as session:
        session.execute(
            text("INSERT INTO aliases VALUES ('me', 'm', 'production', 7, '2026-01-01 00:00:00+00:00')")
        )
        session.commit()
    upgrade(database_url)
    with database.read() as session:
        (move,) = session.scalars(select(AliasMove)).all()
    database.close()
    assert (move.owner, move.model, move.alias, move.seq) == ("me", "m", "production", 1)
    assert (move.kind, move.from_version, move.to_version, move.behind) == ("set", None, 7, None)
    assert (move.key_name, move.reason, move.required) == (None, None, None)
    assert move.at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_downgrade_takes_the_tombstones_of_versions_along(database_url: str) -> None:
    upgrade(database_url)
    database = open_database(database_url)
    with database.write() as session:
        session.add(
            Version(
                id="ver_1",
                owner="me",
                model="m",
                version=1,
                state="deleted",
                task="classification",
                job_id=None,
                checkpoint_id=None,
                manifest_key="none",
                manifest_sha256="",
                signature={},
                classes=None,
                transforms=[],
                metrics={},
                evaluation=None,
                lineage={},
                spec={},
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
        session.commit()
    downgrade(database_url, "0003")
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM versions")).scalar_one() == 0
    database.close()
