"""The schema grows under code that does not know of it."""

import threading
import time

import httpx2
import pytest
from sqlalchemy import text

from core.db.engines import open_database
from migrations import upgrade
from tests import invariants
from tests.site import Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrate_while_old_runs_an_expanded_schema_disturbs_nobody(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """What an expand does to each table in turn: columns that may be null or have a default, a table beside
    it, an index; in one transaction, while jobs are posted, trained and read."""
    site: Site = request.getfixturevalue("lonely" if kind == "sqlite" else "pair")
    url = site.house.settings.resolved_database_url()
    stop = threading.Event()
    failures: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for path in ("/v1/jobs", "/v1/datasets", "/v1/models"):
                try:
                    reply = site.client(0).get(path)
                    if reply.status_code != 200:
                        failures.append(f"{path}: {reply.status_code}")
                except httpx2.HTTPError as error:
                    failures.append(f"{path}: {error}")
            time.sleep(0.05)

    reading = threading.Thread(target=read)
    reading.start()
    job_ids = [site.submit(epochs=4) for _ in range(2)]
    for table in ("jobs", "events", "metrics", "checkpoints", "versions", "datasets", "workers", "keys"):
        database = open_database(url)
        with database.write() as session:
            for statement in (
                f"ALTER TABLE {table} ADD COLUMN later_text VARCHAR(40)",
                f"ALTER TABLE {table} ADD COLUMN later_number INTEGER NOT NULL DEFAULT 0",
                f"CREATE INDEX ix_later_{table} ON {table} (later_number)",
                f"CREATE TABLE later_{table} (id VARCHAR(40) PRIMARY KEY)",
            ):
                session.execute(text(statement))
            session.commit()
        database.close()
        job_ids.append(site.submit(epochs=1))
    site.wait(*job_ids, within_s=180)
    stop.set()
    reading.join()
    assert not failures
    assert all(site.job(job_id).state == "succeeded" for job_id in job_ids)
    assert upgrade(url)[0] == upgrade(url)[1]  # nothing is left to do, and nobody minds what is more
    invariants.require(site.house, job_ids)
