"""The database restarts, loses answers, is written to by many, and is migrated under running code."""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx2
import pytest
from sqlalchemy import text

from core.db import wal
from core.db.engines import open_database
from core.db.statements import leases
from migrations import upgrade
from tests import exactness, invariants
from tests import house as homes
from tests.proxy import Proxy
from tests.servers import Postgres, running_broker
from tests.site import Site, running_site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[Postgres]:
    """Of this module, which kills it."""
    server = Postgres(folder)
    yield server
    server.server.cleanup()


@pytest.fixture(scope="module")
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(postgres.socket) as running:
        yield running


@pytest.fixture(scope="module")
def pair(folder: Path, postgres: Postgres, proxy: Proxy) -> Iterator[Site]:
    """Two services and three workers on one PostgreSQL, behind a proxy."""
    name = postgres.create()
    with (
        running_broker(folder / "broker") as broker,
        running_site(folder / "pair", postgres.url(name), broker.url, lease_s=8) as site,
    ):
        site.settings["database_url"] = postgres.url(name, proxy.port)
        for _ in range(2):
            site.service()
        for _ in range(3):
            site.worker()
        yield site


@pytest.fixture(scope="module")
def unbroken(pair: Site) -> exactness.Outcome:
    job_id = pair.submit()
    pair.wait(job_id)
    return exactness.outcome(pair.house, job_id)


def test_pg_restart_under_load_is_503_for_a_moment_and_loses_and_doubles_no_job(
    pair: Site, postgres: Postgres, unbroken: exactness.Outcome
) -> None:
    job_ids: dict[str, str] = {}
    answers: Counter[int] = Counter()
    stop = threading.Event()

    def post(number: int) -> None:
        client = pair.client(number)
        for count in range(1000):
            if stop.is_set():
                return
            key = f"restart-{number}-{count}"
            while key not in job_ids:
                reply = client.post("/v1/jobs", json=pair.spec(), headers={"Idempotency-Key": key})
                answers[reply.status_code] += 1
                if reply.status_code == 202:
                    job_ids[key] = reply.json()["id"]
                else:
                    assert reply.status_code == 503, reply.text
                    assert int(reply.headers["Retry-After"]) >= 1
                    time.sleep(0.2)
            stop.wait(0.4)

    with invariants.fences_only_rise(pair.house):
        posting = [threading.Thread(target=post, args=(number,)) for number in range(2)]
        for thread in posting:
            thread.start()
        until(lambda: len(job_ids) > 4, "jobs are posted")
        postgres.restart(after_s=2)
        back = time.monotonic()
        until(lambda: all(pair.is_ready(number) for number in range(2)), "both services heal", 30)
        healed_s = time.monotonic() - back
        time.sleep(2)
        stop.set()
        for thread in posting:
            thread.join(60)
            assert not thread.is_alive()
        pair.wait(*job_ids.values(), within_s=180)
    print(f"{len(job_ids)} jobs, answers {dict(answers)}, both services healed in {healed_s:.1f} s")
    assert answers[503] > 0
    assert len(set(job_ids.values())) == len(job_ids)
    assert {job.id for job in homes.read_jobs(pair.house)} >= set(job_ids.values())
    for job_id in job_ids.values():
        assert pair.job(job_id).state == "succeeded"
    last = list(job_ids.values())[-1]
    assert exactness.outcome(pair.house, last) == unbroken
    invariants.require(pair.house, job_ids.values())


@pytest.mark.parametrize("word", [b"INSERT INTO checkpoints", b"INSERT INTO versions"])
def test_pg_restart_that_swallows_the_answer_to_a_commit_loses_nothing_that_was_committed(
    pair: Site, proxy: Proxy, unbroken: exactness.Outcome, word: bytes
) -> None:
    cuts = proxy.cuts
    proxy.cut_commit_of(word)
    job_id = pair.submit()
    pair.wait(job_id)
    assert proxy.cuts == cuts + 1
    job = pair.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert exactness.outcome(pair.house, job_id) == unbroken
    invariants.require(pair.house, [job_id])


def test_pg_restart_does_not_keep_a_worker_that_starts_meanwhile_from_working(
    pair: Site, proxy: Proxy
) -> None:
    for worker in pair.workers:
        worker.end()
    proxy.refuse()
    try:
        for worker in pair.workers:
            worker.start()
        until(lambda: all("database_away" in worker.said() for worker in pair.workers), "they say so", 60)
    finally:
        proxy.heal()
    for worker in pair.workers:
        pair.wait_for_worker(worker)
    job_id = pair.submit()
    pair.wait(job_id)
    invariants.require(pair.house, [job_id])


@pytest.fixture
def lonely(folder: Path, tmp_path: Path) -> Iterator[Site]:
    """One service and two workers on SQLite."""
    name = tmp_path.name
    with (
        running_broker(folder / f"{name}-broker", is_embedded=True) as broker,
        running_site(folder / name, f"sqlite:///{folder / name / 'modelyard.db'}", broker.url) as site,
    ):
        site.service()
        for _ in range(2):
            site.worker()
        yield site


WRITES_PER_S = 200
WRITING_S = 60.0


def test_sqlite_two_writers_and_a_service_at_200_writes_a_second_wait_for_each_other(lonely: Site) -> None:
    """Two processes train, one serves, and two threads write as a worker does, as fast as is asked for."""
    database = open_database(lonely.house.settings.resolved_database_url())
    deadline = time.monotonic() + WRITING_S
    took_s: list[float] = []
    refused: list[str] = []

    def beat(number: int) -> None:
        pause_s = 2 / WRITES_PER_S
        due = time.monotonic()
        while time.monotonic() < deadline:
            started = time.monotonic()
            try:
                with database.write() as session:
                    session.execute(leases.beat_job(f"none{number}", 1))
                    session.execute(text("UPDATE datasets SET revision = revision + 1"))
                    session.commit()
            except Exception as error:
                refused.append(str(error))
            took_s.append(time.monotonic() - started)
            due += pause_s
            time.sleep(max(0.0, due - time.monotonic()))

    writers = [threading.Thread(target=beat, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    job_ids, posts_s, log_bytes = [], [], []
    while time.monotonic() < deadline:
        started = time.monotonic()
        job_ids.append(lonely.submit(epochs=1))
        posts_s.append(time.monotonic() - started)
        log_bytes.append(Path(f"{database.engine.url.database}-wal").stat().st_size)
        time.sleep(2)
    for writer in writers:
        writer.join()
    lonely.wait(*job_ids, within_s=120)
    database.close()
    print(
        f"{len(took_s)} writes in {WRITING_S:g} s, median {median(took_s) * 1000:.1f} ms, the slowest "
        f"{max(took_s) * 1000:.0f} ms; {len(job_ids)} jobs posted, the slowest in {max(posts_s):.2f} s; the "
        f"log had {max(log_bytes):,} bytes at most"
    )
    assert not refused
    for process in (*lonely.services, *lonely.workers):
        assert "database is locked" not in process.said()
    assert max(log_bytes) < 8 * wal.MIN_BYTES
    invariants.require(lonely.house, job_ids)


def test_sqlite_two_writers_never_copy_the_log_themselves_with_a_library_that_may_spoil_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "one.db"
    database = open_database(f"sqlite:///{path}")
    with database.write() as session:
        session.execute(text("CREATE TABLE words (word TEXT)"))
        session.commit()
    for _ in range(40):
        with database.write() as session:
            session.execute(text("INSERT INTO words VALUES (hex(randomblob(100000)))"))
            session.commit()
    log = Path(f"{path}-wal")
    if wal.is_alone_needed():
        assert log.stat().st_size > wal.MIN_BYTES
        first, second = wal.Checkpointer(path), wal.Checkpointer(path)
        first.start()
        second.start()

        def write_once() -> bool:
            with database.write() as session:
                session.execute(text("INSERT INTO words VALUES ('more')"))
                session.commit()
            return log.stat().st_size < wal.MIN_BYTES

        until(write_once, "the log was copied, and begun anew", 10)
        first.close()
        second.close()
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrate_while_old_runs_an_expanded_schema_disturbs_nobody(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
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
