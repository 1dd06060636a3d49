"""Two versions measured on the same rows, in a child of their own that is killed at its deadline."""

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import msgspec
import structlog

from core.errors import Unavailable
from core.evaluation import Broken, Incomparable, Measured, Order, Reply, Side, Split, answer
from core.settings import Settings
from core.storage import Storage
from core.storage.keys import data_key
from modelyard.specs.jobspec import Component
from service.helper import Child, Overdue, Work
from service.likeness import Rival

#: One is measured at a time; who comes when so many wait is told to come again.
MAX_WAITING = 8

#: What a net needs beside its weights while it is loaded and runs, in weights.
WEIGHTS_HELD = 4

log = structlog.stdlib.get_logger()

_replies = msgspec.msgpack.Decoder(Reply)


class ComparisonBroke(Exception):
    """The child raised what it should not; the message is its traceback."""


class _Missing(Exception):
    """Something of a version is gone; the message says what."""


class Comparer:
    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._alone = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    async def measure(
        self, split: Split, metric: str | Component, candidate: Rival, incumbent: Rival
    ) -> Measured | Incomparable:
        """Over the incumbent's rows. Raises Unavailable where too many wait."""
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                f"{MAX_WAITING} comparisons wait already; send the same request again.",
                code="comparisons_busy",
                retry_after_s=10,
            )
        reply: Future[Measured | Incomparable] = Future()
        # A daemon: nobody who stops the service waits for a comparison.
        threading.Thread(
            target=self._run, args=(reply, split, metric, candidate, incumbent), name="compare", daemon=True
        ).start()
        return await asyncio.wrap_future(reply)

    def _run(
        self,
        reply: "Future[Measured | Incomparable]",
        split: Split,
        metric: str | Component,
        candidate: Rival,
        incumbent: Rival,
    ) -> None:
        try:
            with self._alone:
                if reply.set_running_or_notify_cancel():  # else the caller left
                    reply.set_result(self._measured(split, metric, candidate, incumbent))
        except Exception as error:
            reply.set_exception(error)
        finally:
            self._places.release()

    def _measured(
        self, split: Split, metric: str | Component, candidate: Rival, incumbent: Rival
    ) -> Measured | Incomparable:
        try:
            order = Order(self._side(candidate), self._side(incumbent), split, metric)
        except _Missing as missing:
            return Incomparable(str(missing))
        return self._ask(order)

    def _side(self, rival: Rival) -> Side:
        """May fetch files from far. Raises _Missing."""
        dataset = rival.dataset
        try:
            arrow = self._storage.fetch(data_key(dataset.id, dataset.fence))
        except FileNotFoundError as error:
            raise _Missing(f"the rows of {dataset.name}@{dataset.version} are deleted") from error
        try:
            manifest = self._storage.fetch(rival.version.manifest_key)
            weights = self._storage.fetch(rival.weights.weights_key)
        except FileNotFoundError as error:
            raise _Missing(f"the files of {rival.name} are no longer there") from error
        return Side(
            rival.name,
            str(manifest),
            str(weights),
            str(arrow),
            msgspec.json.encode(dataset.manifest),
            msgspec.json.encode(rival.version.spec),
        )

    def _ask(self, order: Order) -> Measured | Incomparable:
        settings = self._settings
        deadline_s = settings.compare_deadline_s
        memory_bytes = settings.plan_memory_bytes + sum(map(_held_bytes, (order.candidate, order.incumbent)))
        try:
            child = Child(Work(answer, deadline_s, memory_bytes, settings.plugins))
        except (OSError, EOFError) as error:
            raise Unavailable(
                "The process that measures versions did not start; send the same request again.",
                code="comparison_not_started",
            ) from error
        try:
            reply: Reply = _replies.decode(child.ask(msgspec.msgpack.encode(order)))
        except Overdue:
            log.warning("comparison_overdue", deadline_s=deadline_s)
            return Incomparable(f"measuring them takes longer than {deadline_s:g} s")
        except (OSError, EOFError):
            return Incomparable(f"measuring them ended the process that does it ({child.end()})")
        else:
            if isinstance(reply, Broken):
                raise ComparisonBroke(reply.traceback)
            return reply
        finally:
            child.end()


def _held_bytes(side: Side) -> int:
    """Of address space: the rows are mapped."""
    return Path(side.arrow).stat().st_size + WEIGHTS_HELD * Path(side.weights).stat().st_size
