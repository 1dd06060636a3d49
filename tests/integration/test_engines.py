"""Sessions on SQLite and PostgreSQL: who writes waits for its turn, times are aware, keys are enforced."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from core.db.engines import AsyncDatabase, Database, open_async_database, open_database
from core.db.models import Dataset, Job, Webhook
from core.db.statements import datasets
from tests.rows import add_dataset, add_job, create_tables

THREADS = 4


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    create_tables(opened)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'one.db'}"


def at_once(count: int, act: Callable[[int], None]) -> None:
    """Runs `act` in so many threads that start together; raises what one of them raised."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        act(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


def test_two_engines_on_one_sqlite_file_write_by_turns_and_lose_nothing(sqlite_url: str) -> None:
    engines = [open_database(sqlite_url), open_database(sqlite_url)]
    create_tables(engines[0])
    with engines[0].write() as session:
        dataset_id = add_dataset(session).id
        session.commit()

    def read_then_write(number: int) -> None:
        for _ in range(60):
            with engines[number % 2].write() as session:
                row = session.scalars(datasets.lock_dataset(dataset_id)).one()
                row.beat += 1
                session.commit()

    at_once(THREADS, read_then_write)
    with engines[1].read() as session:
        assert session.scalars(select(Dataset.beat)).one() == THREADS * 60
    for engine in engines:
        engine.close()


async def test_the_service_and_a_worker_write_to_one_sqlite_file_at_once(sqlite_url: str) -> None:
    worker, service = open_database(sqlite_url), open_async_database(sqlite_url)
    create_tables(worker)
    with worker.write() as session:
        dataset_id = add_dataset(session).id
        session.commit()

    def beat() -> None:
        for _ in range(60):
            with worker.write() as session:
                row = session.scalars(datasets.lock_dataset(dataset_id)).one()
                row.beat += 1
                session.commit()

    async def serve() -> None:
        for _ in range(20):
            async with service.write() as session:
                row = (await session.scalars(datasets.lock_dataset(dataset_id))).one()
                row.revision += 1
                await session.commit()

    await asyncio.gather(asyncio.to_thread(beat), *(serve() for _ in range(3)))
    async with service.read() as reading:
        row = (await reading.scalars(select(Dataset))).one()
        assert (row.beat, row.revision) == (60, 60)
    worker.close()
    await service.close()


def test_a_reader_sees_one_state_while_a_writer_commits(database: Database) -> None:
    with database.write() as session:
        dataset_id = add_dataset(session).id
        session.commit()
    with database.read() as reading:
        assert reading.scalars(select(Dataset.beat)).one() == 0
        with database.write() as writing:  # does not wait for the reader
            writing.execute(update(Dataset).where(Dataset.id == dataset_id).values(beat=1))
            writing.commit()
    with database.read() as session:
        assert session.scalars(select(Dataset.beat)).one() == 1


def test_what_was_not_committed_did_not_happen(database: Database) -> None:
    with database.write() as session:
        add_dataset(session)
    with database.read() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_many_processes_may_open_a_new_sqlite_file_at_once(sqlite_url: str) -> None:
    def open_it(_number: int) -> None:
        opened = open_database(sqlite_url)
        with opened.write() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS t (x INTEGER)"))
            session.execute(text("INSERT INTO t VALUES (1)"))
            session.commit()
        opened.close()

    at_once(8, open_it)
    opened = open_database(sqlite_url)
    with opened.read() as session:
        assert session.scalars(text("SELECT count(*) FROM t")).one() == 8
    opened.close()


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_sqlite_is_durable_enforces_keys_and_waits(sqlite_url: str) -> None:
    opened = open_database(sqlite_url)
    with opened.engine.connect() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
    opened.close()
    assert found == PRAGMAS


async def test_sqlite_is_the_same_for_the_service(sqlite_url: str) -> None:
    opened = open_async_database(sqlite_url)
    async with opened.engine.connect() as connection:
        found = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in PRAGMAS}
    await opened.close()
    assert found == PRAGMAS


def test_a_job_without_its_dataset_is_refused(database: Database) -> None:
    with database.write() as session, pytest.raises(IntegrityError):
        add_job(session, "ds_none")


@pytest.mark.parametrize("hours", [0, 2, -7])
async def test_times_come_back_aware_and_in_utc_to_workers_and_service(
    database: Database, database_url: str, hours: int
) -> None:
    moment = datetime(2026, 7, 1, 23, 30, 15, 123456, tzinfo=timezone(timedelta(hours=hours)))
    with database.write() as session:
        dataset_id = add_dataset(session).id
        add_job(session, dataset_id, not_before=moment)
        session.commit()
    with database.read() as session:
        by_worker = session.scalars(select(Job.not_before)).one()
    service: AsyncDatabase = open_async_database(database_url)
    async with service.read() as session:
        by_service = (await session.scalars(select(Job.not_before))).one()
    await service.close()
    for found in (by_worker, by_service):
        assert found == moment
        assert found is not None
        assert found.tzinfo is UTC or found.utcoffset() == timedelta(0)


def test_times_of_other_zones_are_compared_as_moments(database: Database) -> None:
    noon = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    with database.write() as session:
        dataset_id = add_dataset(session).id
        add_job(session, dataset_id, not_before=noon)
        session.commit()
    ahead = timezone(timedelta(hours=9))
    with database.read() as session:
        before = select(Job).where(Job.not_before <= datetime(2026, 7, 1, 20, 59, tzinfo=ahead))
        after = select(Job).where(Job.not_before <= datetime(2026, 7, 1, 21, 1, tzinfo=ahead))
        assert session.scalars(before).all() == []
        assert len(session.scalars(after).all()) == 1


@pytest.mark.parametrize("opener", [open_database, open_async_database])
def test_another_database_is_refused_with_the_settings_name(opener: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"MODELYARD_DATABASE_URL.*got mysql://"):
        opener("mysql://localhost/db")


def test_an_error_of_the_database_tells_no_values(database: Database) -> None:
    row = {"id": "wh_1", "owner": "ada", "url": "https://x/", "events": [], "state": "enabled"}
    secret = b"a-secret-that-signs"
    with database.write() as session:
        values = {**row, "secret": secret, "created_at": datetime.now(UTC)}
        session.execute(insert(Webhook).values(**values))
        with pytest.raises(IntegrityError) as refused:
            session.execute(insert(Webhook).values(**values))
    assert secret.decode() not in str(refused.value)
    assert secret.hex() not in str(refused.value)
