"""Several processes write to one SQLite file: by turns, and one of them copies its log."""

import sqlite3
import threading
import time
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import text

from core.db import wal
from core.db.engines import open_database
from core.db.statements import leases
from tests import invariants
from tests.site import Site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


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
