"""A house with the digits, whose children and workers can be made to fail; and services and workers in
processes of their own."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests import exactness, injected, invariants
from tests import house as homes
from tests.proxy import Proxy
from tests.servers import Postgres, running_broker
from tests.site import TRAINER, Site, running_site, until
from workers import children
from workers.house import House


@pytest.fixture(scope="session")
def preloaded() -> Iterator[None]:
    children.preload()
    with injected.children_run_through_here():
        yield


@pytest.fixture(scope="module")
def house(preloaded: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for a module: its jobs share the packed cache. Any number of losses is allowed."""
    folder = tmp_path_factory.mktemp("house")
    opened = homes.open_house(
        f"sqlite:///{folder / 'modelyard.db'}", folder / "home", retry_backoff_s=0, max_losses=100
    )
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def manifest(house: House, tmp_path_factory: pytest.TempPathFactory) -> homes.Manifest:
    return homes.add_digits(house, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="modelyard-faults-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module", params=["sqlite, a socket", "postgresql, a port"])
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[Site]:
    """One service and one worker that notice losses soon; on SQLite with a broker as the embedded one is, on
    PostgreSQL with one as an operator gives it. `site.broker` may be killed."""
    database, _, broker_is_on = request.param.partition(", ")
    with ExitStack() as stack:
        own = folder / database
        broker = stack.enter_context(running_broker(own / "broker", is_embedded=broker_is_on == "a socket"))
        url = f"sqlite:///{own / 'modelyard.db'}"
        if database == "postgresql":
            url = fresh_database(request.getfixturevalue("postgresql_url"))
        running = stack.enter_context(running_site(own, url, broker.url))
        running.broker = broker
        running.service()
        running.worker()
        yield running


@pytest.fixture(scope="module")
def unbroken(site: Site) -> exactness.Outcome:
    """What a job of `TRAINER` must come to, whatever happens."""
    job_id = site.submit(**TRAINER)
    site.wait(job_id)
    return exactness.outcome(site.house, job_id)


@pytest.fixture
def watched(site: Site) -> Iterator[None]:
    """During the test; and all are there again after it."""
    with invariants.fences_only_rise(site.house):
        yield
    site.revive()
    for process in site.workers:
        site.wait_for_worker(process)
    until(site.is_ready, "the service is ready", 60)


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


def fresh_database(server_url: str) -> str:
    name = f"faults_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server_url.replace("/postgres?", f"/{name}?")
