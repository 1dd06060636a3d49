"""The service on a real socket and a real database, and rows as a worker would have written them."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
import psycopg
import pytest
from torch import nn

import migrations
from core import ids
from core.data.manifest import Kind, Manifest
from core.db.engines import Database, open_database
from core.db.models import Checkpoint, Dataset, Event, Job, Key, Version, utc_now
from core.db.statements import datasets, jobs, leases, models
from core.nets import artifacts
from core.settings import Settings
from modelyard.specs import Feature, JobState, Lineage, Signature, Tensor
from service.__main__ import Server, make_server
from service.keys import digest_of, new_key

_owners = (f"owner{number}" for number in itertools.count())

#: Nothing listens there: wake-ups fail, and the service must not mind.
NO_BROKER = "redis://127.0.0.1:1/0"


@dataclass
class Owner:
    """Somebody with a key, and what a worker would do for them."""

    name: str
    key: str
    database: Database
    client: httpx2.Client

    def job(self, **changes: Any) -> dict[str, Any]:
        """A small job that can train, on `dataset()`."""
        layers = [{"type": "Linear", "out_features": 3}]
        return {"name": "m", "dataset": "d", "model": {"type": "Sequential", "layers": layers}, **changes}

    def dataset(
        self, name: str = "d", *, state: str = "ready", manifest: Manifest | None = None, **values: Any
    ) -> str:
        """Arrays of 4 float32 features and 3 classes, 90 training rows, or what `manifest` says."""
        manifest = manifest or Manifest(
            format="arrays",
            kind=Kind.ARRAYS,
            splits={"train": 90, "test": 30},
            features={"x": Feature("float32", [4]), "y": Feature("int64", [])},
            data_sha256="0" * 64,
            data_bytes=1,
            classes=["a", "b", "c"],
            class_counts={"train": [30, 30, 30]},
        )
        with self.database.write() as session:
            row = Dataset(
                id=ids.dataset_id(),
                owner=self.name,
                name=name,
                version=session.scalars(datasets.next_number(self.name, name)).one(),
                state=state,
                format="auto",
                options={},
                filename="d.npz",
                source_key="none",
                bytes=1,
                sha256=uuid4().hex * 2,
                manifest=msgspec.to_builtins(manifest) if state == "ready" else None,
                created_at=utc_now(),
                **values,
            )
            session.add(row)
            session.commit()
            return row.id

    def post_job(self, **changes: Any) -> dict[str, Any]:
        reply = self.client.post("/v1/jobs", json=self.job(**changes))
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    def claim(self, job_id: str) -> int:
        """As a worker does, for one job; its fence."""
        with self.database.write() as session:
            job = session.scalars(jobs.lock_job(job_id)).one()
            job.fence += 1
            job.attempt += 1
            session.add(jobs.move(job, JobState.RUNNING, "claimed", utc_now()))
            session.commit()
            return job.fence

    def move(self, job_id: str, state: JobState, reason: str = "test") -> None:
        with self.database.write() as session:
            job = session.scalars(jobs.lock_job(job_id)).one()
            session.add(jobs.move(job, state, reason, utc_now()))
            session.commit()

    def say(self, job_id: str, kind: str, **data: Any) -> Event:
        with self.database.write() as session:
            job = session.scalars(jobs.lock_job(job_id)).one()
            event = jobs.add_event(job, kind, data, utc_now())
            session.add(event)
            session.commit()
            return event

    def report(self, job_id: str, fence: int, **values: Any) -> None:
        with self.database.write() as session:
            assert session.scalar(leases.beat_job(job_id, fence, **values)) is not None
            session.commit()

    def version(
        self,
        settings: Settings,
        net: nn.Module,
        *,
        state: str = "ready",
        model: str = "m",
        described: artifacts.VersionManifest | None = None,
        dataset: Manifest | None = None,
        scores: dict[str, float | None] | None = None,
        environment: dict[str, Any] | None = None,
        **changes: Any,
    ) -> int:
        """A version of `net` (4 features, 3 classes, unless it is `described`), registered as a worker does;
        its number. It learned from `dataset`, by a job with these `changes`; `scores` are its metrics."""
        self.dataset(manifest=dataset)
        job = self.post_job(**changes)
        root, version_id = settings.resolved_home() / "artifacts", ids.version_id()
        weights_path, manifest_path = root / version_id / "weights.pt", root / version_id / "manifest.json"
        weights_path.parent.mkdir(parents=True)
        weights = artifacts.save(net.state_dict(), weights_path)
        described = described or artifacts.VersionManifest(
            task="classification",
            kind=Kind.ARRAYS,
            model=job["spec"]["model"],
            row_shape=[4],
            classes=["a", "b", "c"],
            transforms=[],
            prepare=[],
            signature=Signature(
                [Tensor("input", "FP32", [-1, 4])],
                [Tensor("scores", "FP32", [-1, 3]), Tensor("label", "BYTES", [-1])],
            ),
            golden=[],
            tolerance=1e-6,
            raw_shape=[4],
            raw_dtype="float32",
        )
        manifest = artifacts.write_manifest(described, manifest_path)
        now = utc_now()
        lineage = Lineage(job["id"], "ckpt", "d", 1, "0" * 64, 0, environment or {})
        with self.database.write() as session:
            checkpoint = Checkpoint(
                id=ids.checkpoint_id(),
                owner=self.name,
                job_id=job["id"],
                state="ready",
                fence=1,
                step=1,
                epoch=1,
                is_best=True,
                metrics={},
                weights_key=f"{version_id}/weights.pt",
                weights_bytes=weights.size,
                weights_sha256=weights.sha256,
                state_key=f"{version_id}/state.pt",
                state_bytes=0,
                state_sha256="",
                created_at=now,
            )
            session.add(checkpoint)
            session.flush()
            row = Version(
                id=version_id,
                owner=self.name,
                model=model,
                version=session.scalars(models.next_number(self.name, model)).one(),
                state=state,
                task=described.task,
                job_id=job["id"],
                checkpoint_id=checkpoint.id,
                manifest_key=f"{version_id}/manifest.json",
                manifest_sha256=manifest.sha256,
                signature=msgspec.to_builtins(described.signature),
                classes=described.classes,
                transforms=[],
                metrics=scores or {"val_accuracy": 0.5},
                lineage=msgspec.to_builtins(lineage),
                spec=job["spec"],
                created_at=now,
            )
            session.add(row)
            session.commit()
            return row.version

    def row(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.scalars(jobs.lock_job(job_id)).one()


@dataclass
class RunningService:
    url: str
    settings: Settings
    server: Server
    database: Database

    @property
    def admin_key(self) -> str:
        return (self.settings.resolved_home() / "admin.key").read_text().strip()

    @contextmanager
    def owner(self, *scopes: str) -> Iterator[Owner]:
        """A fresh owner, so that tests sharing a service do not see each other."""
        name, key = next(_owners), new_key()
        with self.database.write() as session:
            session.add(
                Key(
                    id=ids.key_id(),
                    owner=name,
                    name="test",
                    secret_sha256=digest_of(key),
                    scopes=list(scopes) or ["admin"],
                    created_at=utc_now(),
                )
            )
            session.commit()
        with self.client(key) as client:
            yield Owner(name, key, self.database, client)

    def client(self, key: str | None = None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30)


@contextmanager
def run_service(database_url: str, home: Path, **changes: Any) -> Iterator[RunningService]:
    """In a thread of this process, on a free port, until the block ends."""
    migrations.upgrade(database_url)
    settings = Settings(
        home=home,
        port=0,
        database_url=database_url,
        **{"broker_url": NO_BROKER, "min_free_bytes": 0, **changes},
    )
    server = make_server(settings)
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the service ended at its start"
        assert time.monotonic() < deadline, "the service did not start within 30 s"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    database = open_database(database_url)
    try:
        yield RunningService(f"http://127.0.0.1:{port}", settings, server, database)
    finally:
        database.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the service did not stop within 30 s"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """One service a module and database; each test takes an owner of its own."""
    with run_on_both(request, tmp_path_factory.mktemp("home")) as running:
        yield running


@contextmanager
def run_on_both(request: pytest.FixtureRequest, home: Path, **changes: Any) -> Iterator[RunningService]:
    """For a fixture with the parameters sqlite and postgresql: a service with settings of its own."""
    if request.param == "sqlite":
        with run_service(f"sqlite:///{home / 'modelyard.db'}", home, **changes) as running:
            yield running
        return
    server_url: str = request.getfixturevalue("postgresql_url")
    name = f"service_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    with run_service(server_url.replace("/postgres?", f"/{name}?"), home, **changes) as running:
        yield running
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def me(service: RunningService) -> Iterator[Owner]:
    with service.owner() as owner:
        yield owner
