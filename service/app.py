"""The app: all wiring on one screen."""

from asyncio import create_task, gather, to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.middleware import DefineMiddleware

from core.db.wal import open_checkpointer
from core.settings import Settings
from service.api import (
    aliases,
    audit,
    batch_predictions,
    boards,
    checkpoints,
    components,
    dataset_files,
    datasets,
    ejects,
    events,
    health,
    jobs,
    keys,
    metrics,
    models,
    open_inference,
    open_inference_repository,
    plans,
    predictions,
    samples,
    suspects,
    uploads,
    webhooks,
    weights,
)
from service.auth import undecided_routes
from service.authenticate import Authenticate
from service.edge import Edge
from service.inference.engine import alone
from service.methods import Methods
from service.parts import Parts, open_parts
from service.problems import answer_problem
from service.queries import KnownParameters
from service.quick import Quick
from service.schema import openapi_config
from service.startup import (
    first_admin_key,
    load_plugins,
    require_networks,
    require_safe_address,
    require_webhook_networks,
)

#: Bodies of routes that do not say otherwise.
MAX_BODY_BYTES = 1024 * 1024

log = structlog.stdlib.get_logger()


def create_app(settings: Settings) -> Edge:
    """The whole service as an ASGI app. Raises CannotStart where the settings do not allow it."""
    require_safe_address(settings)
    require_networks(settings)
    require_webhook_networks(settings)
    load_plugins(settings)
    parts = open_parts(settings)
    app = Litestar(
        route_handlers=[
            datasets.Datasets,
            samples.Samples,
            dataset_files.DatasetFiles,
            uploads.Uploads,
            plans.Plans,
            components.Components,
            jobs.Jobs,
            events.Events,
            suspects.SuspectRows,
            ejects.Ejects,
            boards.Boards,
            checkpoints.Checkpoints,
            models.Models,
            aliases.Aliases,
            weights.VersionWeights,
            predictions.Predictions,
            open_inference.OpenInferenceHealth,
            open_inference.OpenInferenceServer,
            open_inference.OpenInferenceModels,
            open_inference_repository.OpenInferenceStatistics,
            open_inference_repository.OpenInferenceRepository,
            batch_predictions.BatchPredictions,
            keys.Keys,
            audit.Audit,
            webhooks.Webhooks,
            health.Health,
            metrics.Metrics,
        ],
        dependencies={"parts": Provide(lambda: parts, sync_to_thread=False)},
        middleware=[
            DefineMiddleware(Methods),
            DefineMiddleware(Authenticate, gate=parts.gate, addresses=parts.addresses),
            DefineMiddleware(KnownParameters),
        ],
        exception_handlers={Exception: answer_problem},
        lifespan=[lambda _app: _running(parts)],
        openapi_config=openapi_config(),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
        debug=False,
    )
    undecided = undecided_routes(app)
    assert not undecided, f"these routes name no scope: {undecided}"
    return Edge(app, parts, Quick(parts))


@asynccontextmanager
async def _running(parts: Parts) -> AsyncIterator[None]:
    settings = parts.settings
    alone()  # the event loop's own forwards
    checkpointer = open_checkpointer(settings.resolved_database_url())
    try:
        if checkpointer is not None:
            checkpointer.start()
        settings.scratch().mkdir(parents=True, exist_ok=True)
        key_file = await first_admin_key(settings, parts.database)
        if key_file is not None:
            log.info("admin_key_written", path=str(key_file))
        parts.helper.start()
        parts.explainer.start()
        if parts.processes is not None:
            parts.processes.start()
        running = [
            create_task(parts.sweeper.run()),
            create_task(parts.sender.run()),
            create_task(parts.keyring.follow()),
        ]
        if parts.shared_buckets is not None:
            running.append(create_task(parts.shared_buckets.run()))
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await gather(*running, return_exceptions=True)
    finally:
        if checkpointer is not None:
            await to_thread(checkpointer.close)
        await parts.close()
