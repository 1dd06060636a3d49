"""What handlers work with: opened once, closed once, given to each handler that names it."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from core import queue
from core.db.changes import Changes, open_changes
from core.db.engines import AsyncDatabase, Database, open_async_database
from core.db.models import Checkpoint, Version
from core.db.statements import batch_predictions, datasets, jobs, keys
from core.predict import Predictor
from core.settings import Settings
from core.storage import Storage, open_storage
from service import explainer, planner
from service.addresses import Addresses
from service.audit import keep_audit
from service.buckets import Buckets
from service.collection import collect
from service.comparing import Comparer
from service.estimates import Estimator
from service.exporter import Exporter
from service.gate import Gate
from service.helper import Helper, explanations, plans
from service.inference.cache import ModelCache
from service.inference.engine import Engine
from service.inference.files import VersionFiles, load_files
from service.inference.loading import fetch_version
from service.inference.names import Found, Names
from service.inference.processes.elsewhere import Elsewhere
from service.inference.processes.pool import Pool
from service.inference.served import Served
from service.inference.statistics import Statistics, name_of
from service.keyring import Keyring
from service.metrics.stored import Counts
from service.metrics.traffic import Traffic
from service.orphans import Orphans
from service.revisions import Revisions, open_near
from service.room import Room
from service.shared_buckets import SharedBuckets
from service.sweep import Sweeper
from service.together import Together
from service.watch import Watcher
from service.webhooks.addresses import Allowed
from service.webhooks.posting import Post, Resolver
from service.webhooks.sender import MAX_AT_ONCE, Sender


@dataclass(frozen=True)
class Parts:
    settings: Settings
    database: AsyncDatabase
    near: Database | None
    changes: Changes | None
    storage: Storage
    addresses: Addresses
    keyring: Keyring
    shared_buckets: SharedBuckets | None
    gate: Gate
    jobs_watcher: Watcher
    datasets_watcher: Watcher
    batches_watcher: Watcher
    sweeper: Sweeper
    names: Names
    models: ModelCache[Served]
    engine: Engine
    processes: Pool | None
    helper: Helper
    comparer: Comparer
    explainer: Helper
    estimator: Estimator
    statistics: Statistics
    traffic: Traffic
    counts: Counts
    body_room: Room
    exporter: Exporter
    joins: Together[str, str]
    resolver: Resolver
    poster: Post
    sender: Sender
    stopping: asyncio.Event

    async def served(self, found: Found) -> Served:
        """The version, loaded. Raises what `fetch_version` and `load_files` raise."""
        version, weights = found
        served = self.models.find(version.id)
        if served is not None:
            return served
        # A file of weights is never smaller than what it holds.
        return await self.models.get(version.id, partial(self._prepared, *found), weights.weights_bytes)

    def _prepared(self, version: Version, weights: Checkpoint) -> Callable[[], Served]:
        files = fetch_version(self.storage, version, weights)
        return partial(self._loaded, version, files)

    def _loaded(self, version: Version, files: VersionFiles) -> Served:
        name, on_forward = name_of(version), partial(_count_forward, self.statistics, version)
        if self.processes is not None:
            placed = self.processes.load(version.id, files)
            return Elsewhere(name, Predictor.without_net(files.manifest), placed, on_forward)
        return Served(name, load_files(files), self.engine, on_forward)

    @property
    def can_compute(self) -> bool:
        """Whether all inference processes are up; without any it can."""
        return self.processes is None or self.processes.is_up

    def begin_stop(self) -> None:
        """Readiness says no, and whoever waits (`?wait=`, event streams) is answered now."""
        self.stopping.set()
        self.jobs_watcher.stop()
        self.datasets_watcher.stop()
        self.batches_watcher.stop()
        self.exporter.stop()

    async def close(self) -> None:
        self.begin_stop()
        self.sweeper.close()
        self.engine.close()
        self.models.close()
        if self.processes is not None:
            await self.processes.close()
        self.helper.close()
        self.explainer.close()
        self.exporter.close()
        self.resolver.close()
        if self.near is not None:
            self.near.close()
        if self.changes is not None:
            self.changes.close()
        await self.database.close()


#: How a handler asks for them.
Wired = NamedDependency[SkipValidation[Parts]]


def open_parts(settings: Settings) -> Parts:
    """Connects to nothing yet: the first query and the first wake-up do."""
    database = open_async_database(settings.resolved_database_url())
    near = open_near(settings.resolved_database_url())
    changes = open_changes(settings.resolved_database_url())
    storage = open_storage(settings.resolved_storage_url(), settings.scratch() / "fetched")
    keep_audit(database)
    addresses = Addresses(settings.trusted_proxies)
    keyring = Keyring(database, Revisions(database, near, keys.revisions))
    buckets = Buckets(settings.requests_per_s, settings.requests_burst)
    is_limited = settings.auth == "on" and settings.requests_per_s > 0
    resolver = Resolver(MAX_AT_ONCE)
    poster = Post(
        Allowed.of(settings.webhook_allow), settings.webhook_timeout_s, resolver, ssl.create_default_context()
    )
    return Parts(
        settings=settings,
        database=database,
        storage=storage,
        near=near,
        changes=changes,
        addresses=addresses,
        keyring=keyring,
        shared_buckets=SharedBuckets(buckets, settings.resolved_broker_url()) if is_limited else None,
        gate=Gate(settings, keyring, buckets, addresses),
        jobs_watcher=Watcher(Revisions(database, near, jobs.revisions)),
        datasets_watcher=Watcher(Revisions(database, near, datasets.revisions)),
        batches_watcher=Watcher(Revisions(database, near, batch_predictions.revisions)),
        sweeper=Sweeper(
            database,
            settings,
            partial(queue.wake, queue.make_celery(settings)),
            collect=partial(collect, database, storage, Orphans(database, storage)),
        ),
        names=Names(database, changes),
        models=ModelCache(settings.model_cache_bytes),
        engine=Engine(),
        processes=Pool(settings) if settings.inference_processes else None,
        comparer=Comparer(settings, storage),
        helper=Helper(plans(settings), planner.answer, settings.plugins),
        explainer=Helper(explanations(settings), explainer.answer, settings.plugins),
        estimator=Estimator(database),
        statistics=Statistics(),
        traffic=Traffic(),
        counts=Counts(database),
        body_room=Room(),
        exporter=Exporter(settings, storage),
        joins=Together(),
        resolver=resolver,
        poster=poster,
        sender=Sender(database, poster),
        stopping=asyncio.Event(),
    )


def _count_forward(
    statistics: Statistics, version: Version, rows: int, seconds: float, transform_s: float
) -> None:
    transform_ns = round(transform_s * 1e9)
    statistics.of(version).computed(rows, transform_ns, round(seconds * 1e9) - transform_ns)
