"""Those who ask: a client of the service over HTTP, a worker for its next job, the sweep. In milliseconds."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from sqlalchemy import update

from benchmarks.databases.rows import LONG_EVERY, Amount, job_id
from core.db.engines import open_database
from core.db.models import Job, utc_now
from core.db.statements import jobs, leases
from core.ids import worker_id
from deploy.address import is_ready, take_port

READY_WAIT_S = 60
WARM_UP, TIMES = 5, 100

Timings = dict[str, list[float]]


def ask(url: str, home: Path, amount: Amount) -> Timings:
    with _service(url, home) as base:
        return {**_over_http(base, amount), **_from_workers(url)}


def _over_http(base: str, amount: Amount) -> Timings:
    middle, long = job_id(amount.jobs // 2 + 1), job_id(LONG_EVERY - 1)
    half = amount.long_steps // 2
    asked = {
        "list, newest 20": "/v1/jobs",
        "list, 20 from the middle": f"/v1/jobs?after={middle}",
        "list, waiting": "/v1/jobs?state=queued",
        "list, in a state that none has": "/v1/jobs?state=paused",
        "list, of one model": "/v1/jobs?name=model-7",
        "show": f"/v1/jobs/{middle}",
        "events": f"/v1/jobs/{middle}/events",
        "metrics, first 200": f"/v1/jobs/{middle}/metrics?limit=200",
        "metrics of a long job, first 200": f"/v1/jobs/{long}/metrics?limit=200",
        "metrics of a long job, 200 from the middle": f"/v1/jobs/{long}/metrics?limit=200&after={half}:lr",
        "metrics of a long job, one name": f"/v1/jobs/{long}/metrics?names=val_loss&limit=200",
    }
    with httpx2.Client(base_url=base, timeout=60) as client:

        def get(path: str) -> None:
            client.get(path).raise_for_status()

        return {what: _timed(lambda path=path: get(path)) for what, path in asked.items()}  # type: ignore[misc]  # bound


def _from_workers(url: str) -> Timings:
    database = open_database(url)
    claimed: list[str] = []

    def claim() -> None:
        with database.write() as session:
            statement = leases.claim_job("cpu", utc_now(), worker_id=worker_id(), slots=1, free=1)
            job = session.scalars(statement).one()
            claimed.append(job.id)
            session.execute(update(Job).where(Job.id == job.id).values(state="running"))
            session.commit()

    def look() -> None:
        with database.read() as session:
            session.execute(leases.running_leases()).all()
            session.execute(leases.claimable_jobs(utc_now())).all()
            session.execute(leases.unwanted_jobs()).all()

    def forget() -> None:
        with database.write() as session:
            session.execute(jobs.forget_metrics_after(job_id(LONG_EVERY - 1), 10**9))
            session.commit()

    try:
        return {
            "claim the best of all that wait": _timed(claim),
            "the sweep's look at leases and waiting jobs": _timed(look),
            "a resume forgets what came after its checkpoint": _timed(forget),
        }
    finally:
        database.close()


def _timed(do: Callable[[], None]) -> list[float]:
    for _ in range(WARM_UP):
        do()
    found = []
    for _ in range(TIMES):
        started = time.perf_counter()
        do()
        found.append((time.perf_counter() - started) * 1000)
    return found


@contextmanager
def _service(url: str, home: Path) -> Iterator[str]:
    """The service in a process of its own, without keys, broker and workers."""
    port = take_port("127.0.0.1", 0)
    environment = {
        **os.environ,
        "MODELYARD_HOME": str(home),
        "MODELYARD_DATABASE_URL": url,
        "MODELYARD_BROKER_URL": "redis://127.0.0.1:1/0",
        "MODELYARD_PORT": str(port),
        "MODELYARD_AUTH": "off",
        "MODELYARD_LOG_LEVEL": "error",
    }
    base = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "service"], env=environment)
    try:
        deadline = time.monotonic() + READY_WAIT_S
        while not is_ready(base):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service was not ready within {READY_WAIT_S} s")
            time.sleep(0.1)
        yield base
    finally:
        process.kill()  # nothing is under way, and the folder goes with it
        process.wait()
