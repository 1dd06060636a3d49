"""The Celery app of a worker: `python -m workers`, or `celery -A workers.app worker --pool=threads`.

Importing it loads no torch: training happens in children.
"""

from typing import Any

import structlog
from celery import Celery, signals
from celery.concurrency.thread import TaskPool

from core.logs import configure_logs
from core.queue import WAKE, make_celery
from core.settings import Settings, settings_or_exit
from workers import children
from workers.bell import Bell
from workers.house import House
from workers.tasks import wake

log = structlog.get_logger()


def create_worker(settings: Settings) -> Celery:
    """Wires the tasks to a house that opens when the worker starts, not when this module is imported."""
    celery = make_celery(settings)
    opened: list[House] = []

    def on_wake() -> None:
        wake(opened[0])

    def on_init(sender: Any, **_: Any) -> None:
        refuse_other_pools(sender.pool_cls)
        configure_logs(settings)
        try:
            house = House(settings)
            if settings.pool != "data":
                children.preload(settings.plugins)
            house.open()
        except Exception as error:  # Celery would log it, and take wake-ups that nobody can follow
            log.exception("worker_cannot_start")
            raise SystemExit(f"the worker cannot start: {error}") from error
        opened.append(house)
        log.info("worker_ready", pool=settings.pool, slots=settings.slots, worker=house.worker_id)

    def on_shutting_down(**_: Any) -> None:
        if opened:
            opened[0].draining.set()

    def on_shutdown(**_: Any) -> None:
        if opened:
            opened[0].close()

    celery.task(name=WAKE)(on_wake)
    celery.steps["consumer"].add(Bell)
    signals.worker_init.connect(on_init, weak=False)
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.worker_shutdown.connect(on_shutdown, weak=False)
    return celery


def refuse_other_pools(pool: type) -> None:
    """solo acknowledges only at the end of a task, so hours of training run twice; prefork's processes
    may have no children of their own."""
    if not issubclass(pool, TaskPool):
        raise SystemExit(
            f"a worker needs --pool=threads, got {pool.__module__}: with solo a long job is delivered twice, "
            "with prefork training cannot start its processes. `modelyard worker` chooses it for you"
        )


app = create_worker(settings_or_exit())
