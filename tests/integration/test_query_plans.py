"""What is asked often comes in the order of an index: nothing is sorted, no table is read from end to end."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Executable, text
from sqlalchemy.dialects import postgresql, sqlite

import migrations
from core.db.engines import Database, open_database
from core.db.models import utc_now
from core.db.statements import jobs, leases, preemption

ASKED: dict[str, Executable] = {
    "list": jobs.list_jobs("me", state=None, name=None, after=None, limit=20),
    "next page of a list": jobs.list_jobs("me", state=None, name=None, after="job_1", limit=20),
    "list of a state": jobs.list_jobs("me", state="queued", name=None, after="job_1", limit=20),
    "list of a model": jobs.list_jobs("me", state=None, name="m", after="job_1", limit=20),
    "page of metrics": jobs.metrics_after("job_1", None, None, 20),
    "next page of metrics": jobs.metrics_after("job_1", None, (7, "lr"), 20),
    "claim": leases.claim_job("cpu", utc_now(), worker_id="w", slots=1, free=1),
    "who waits": preemption.waiting_jobs("cpu", utc_now(), above=0),
    "who is not wanted any more": leases.unwanted_jobs(),
    "running leases": leases.running_leases(),
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    migrations.upgrade(database_url)
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_often_is_neither_sorted_nor_searched_from_end_to_end(
    database: Database, what: str
) -> None:
    plan = plan_of(database, ASKED[what])
    assert "TEMP B-TREE" not in plan, plan  # SQLite
    assert "SCAN jobs" not in plan, plan
    assert "SCAN metrics" not in plan, plan
    assert "Sort" not in plan, plan  # PostgreSQL
    assert "Seq Scan" not in plan, plan


def plan_of(database: Database, asked: Any) -> str:
    """PostgreSQL would sort the few rows of a test; told not to, it does only where there is no index."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    dialect = sqlite.dialect(paramstyle="named") if is_sqlite else postgresql.dialect()
    written = str(asked.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with database.engine.connect() as connection:
        if is_sqlite:
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}").all()
            return "\n".join(row[3] for row in found)
        connection.execute(text("SET enable_sort = off"))
        connection.execute(text("SET enable_seqscan = off"))
        connection.execute(text("SET enable_bitmapscan = off"))
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {written}").all())
