"""Services and workers as they are run, in processes of their own, on a database and a broker that are given:
what a test kills, holds and starves."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

import migrations
from core.db.engines import open_database
from core.db.models import Job, Worker
from core.fault_points import POINTS
from core.settings import Settings
from deploy.parts import dies_with_parent
from tests import house as homes
from tests.servers import Broker, free_port
from workers.house import House

#: Ends in seconds; with a checkpoint every five steps there is one behind the twentieth.
TRAINER: dict[str, Any] = {"epochs": 3, "checkpoint": {"every_steps": 5, "keep": 2}}

ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass
class Process:
    """`python -m <module>`. Its family is all that it has started itself."""

    module: str
    environment: dict[str, str]
    log: Path
    wrapper: list[str] = field(default_factory=list)
    popen: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    said_before: int = 0

    def start(self) -> None:
        self.said_before = len(self.said()) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", self.module],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )
        self.starts += 1

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = 60) -> int:
        """Its exit status."""
        assert self.popen is not None
        return self.popen.wait(timeout_s)

    def end(self, timeout_s: float = 60) -> int:
        """SIGTERM, and its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    @property
    def family(self) -> list[int]:
        return [self.pid, *descendants(self.pid)]

    @property
    def trainers(self) -> list[int]:
        """The processes that train: forked by the fork server, each leads a group of its own."""
        return [pid for pid in descendants(self.pid) if _is_trainer(pid)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped with all that it has started, until the end of the block."""
        stopped = self.family
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


class Site:
    """`house` looks into the same database and storage. Who asks is everybody: keys are off. `broker` is the
    one behind the URL, where a test may do with it what it likes."""

    broker: Broker

    def __init__(self, folder: Path, database_url: str, broker_url: str, **settings: Any) -> None:
        self.folder = folder
        self.faults = folder / "faults"
        self.faults.mkdir(parents=True)
        self.settings = {
            "home": folder / "home",
            "database_url": database_url,
            "broker_url": broker_url,
            "auth": "off",
            "min_free_bytes": 0,
            "lease_s": 3,
            "beat_s": 0.5,
            "sweep_s": 0.5,
            "retry_backoff_s": 0.1,
            "slots": 1,
            **settings,
        }
        self.services: list[Process] = []
        self.workers: list[Process] = []
        migrations.upgrade(database_url)
        # Around a proxy where there is one: what is seen from here is what is there.
        self.house = House(Settings(**self.settings))
        self.manifest = homes.add_digits(self.house, folder)
        self._clients: list[httpx2.Client] = []

    # Processes

    def service(self, **changes: Any) -> Process:
        """One more, once it is ready."""
        port = free_port()
        name = f"service{len(self.services) + 1}"
        process = self._process("service", name, port=port, plan_processes=1, **changes)
        self.services.append(process)
        self._clients.append(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False))
        until(lambda: self.is_ready(len(self.services) - 1), f"{name} is ready", 60)
        return process

    def worker(self, pool: str = "cpu", wrapper: list[str] | None = None, **changes: Any) -> Process:
        """One more, once it can be woken."""
        name = f"worker{len(self.workers) + 1}"
        process = self._process("workers", name, wrapper=wrapper, pool=pool, **changes)
        self.workers.append(process)
        self.wait_for_worker(process)
        return process

    def wait_for_worker(self, process: Process) -> None:
        """Until it is among the workers, and listens."""
        until(lambda: process.pid in self.known_workers(), f"worker {process.pid} is known", 60)
        until(lambda: " ready." in process.said()[process.said_before :], f"{process.pid} listens", 60)

    @contextmanager
    def paused_without_a_lock(self, process: Process) -> Iterator[None]:
        """SQLite's lock is its holder's until it goes on: one that is stopped with it stops everybody."""
        while True:
            with process.paused():
                if self._can_write():
                    yield
                    return

    def _can_write(self) -> bool:
        impatient = open_database(self.house.settings.resolved_database_url(), busy_timeout_s=0.5)
        try:
            with impatient.write() as session:
                session.execute(update(Worker).values(beat=Worker.beat))
                session.commit()
        except OperationalError:
            return False
        finally:
            impatient.close()
        return True

    def known_workers(self) -> list[int]:
        with self.house.database.read() as session:
            return list(session.scalars(select(Worker.pid)))

    def is_ready(self, number: int = 0) -> bool:
        try:
            return self._clients[number].get("/health/ready", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    def revive(self) -> None:
        """Starts again whoever has ended, as whatever runs them would."""
        for process in (*self.services, *self.workers):
            if not process.is_running:
                process.start()

    def _process(self, module: str, name: str, wrapper: list[str] | None = None, **changes: Any) -> Process:
        settings = {key: str(value) for key, value in (self.settings | changes).items()}
        environment = {
            **os.environ,
            **{f"MODELYARD_{key.upper()}": value for key, value in settings.items()},
            "MODELYARD_FAULTS": str(self.faults),
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
        }
        process = Process(module, environment, self.folder / f"{name}.log", wrapper or [])
        process.start()
        return process

    # Faults

    def plan(self, point: str, act: str) -> None:
        """`act` is what `core.fault_points` knows, at the next passage of any process."""
        assert point in POINTS
        self.let_go(point)  # what came of an earlier plan is over
        written = self.faults / f".{point}"
        written.write_text(act)
        written.rename(self.faults / point)

    def wait_for(self, point: str, within_s: float = 60) -> int:
        """Until a process is, or was, where something was planned; its pid."""
        until(lambda: bool(self._taken(point)), f"something came to {point}", within_s)
        return int(self._taken(point)[0].suffix[1:])

    def let_go(self, point: str) -> None:
        for held in self._taken(point):
            held.unlink(missing_ok=True)

    def is_planned(self, point: str) -> bool:
        """Whether nobody has come by yet."""
        return (self.faults / point).exists()

    def _taken(self, point: str) -> list[Path]:
        return list(self.faults.glob(f"{point}.[0-9]*"))

    # Jobs

    @property
    def http(self) -> httpx2.Client:
        return self._clients[0]

    def client(self, number: int) -> httpx2.Client:
        return self._clients[number]

    def spec(self, **trainer: Any) -> dict[str, Any]:
        return {
            "name": "digits",
            "dataset": "digits@1",
            "model": homes.NET,
            "trainer": {"batch_size": 100, "epochs": 3, "device": "cpu", **trainer},
        }

    def submit(self, number: int = 0, **trainer: Any) -> str:
        reply = self._clients[number].post("/v1/jobs", json=self.spec(**trainer))
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def job(self, job_id: str) -> Job:
        return homes.read_job(self.house, job_id)

    def wait(self, *job_ids: str, within_s: float = 90, revives: bool = False) -> None:
        """Until all have ended. With `revives` whoever dies meanwhile is started again."""

        def have_ended() -> bool:
            if revives:
                self.revive()
            return all(self.job(job_id).state in ENDED for job_id in job_ids)

        until(have_ended, f"{', '.join(job_ids)} ended", within_s)

    def wait_for_state(self, job_id: str, state: str, within_s: float = 60) -> None:
        until(lambda: self.job(job_id).state == state, f"{job_id} is {state}", within_s)

    def close(self) -> None:
        for process in (*self.services, *self.workers):
            if process.is_running:
                for pid in process.family:
                    _kill(pid)
                process.wait()
        for client in self._clients:
            client.close()
        self.house.database.close()


@contextmanager
def running_site(folder: Path, database_url: str, broker_url: str, **settings: Any) -> Iterator[Site]:
    site = Site(folder, database_url, broker_url, **settings)
    try:
        yield site
    finally:
        site.close()


def descendants(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for path in Path(f"/proc/{pid}/task").glob("*/children")
            for child in path.read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [one for child in children for one in (child, *descendants(child))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _is_trainer(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid and "forkserver" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
