"""The exporter: one export at a time, each in a child of its own that is killed at its deadline.

Plans have their own children and never wait for it. Whoever asks for the same file waits for the same export;
who has waited for long is told to come again, and the export goes on.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from core.db.models import Checkpoint, Version
from core.errors import Gone, Invalid, ModelyardError, Unavailable
from core.export import stored
from core.export.make import Order
from core.settings import Settings
from core.storage import Storage
from core.storage.durable import StoredFile
from modelyard.specs import WeightsFormat
from service import export_child
from service.helper import Answer, Child, Overdue, Work
from service.spool import require_free, spool_folder

#: So long is a request held; less than clients and proxies wait for a first byte.
HOLD_S = 25.0

#: Who was held so long comes again after so many seconds.
RETRY_AFTER_S = 5

#: Who comes when so many files are being made or wait for it is told to come again.
MAX_MAKING = 16

#: What could not be made is not tried again for so long: the next to ask is told why at once.
REMEMBERED_S = 600.0
MAX_REMEMBERED = 256

#: Bytes that the disk must have free for each byte of the weights.
ROOM = 2

log = structlog.stdlib.get_logger()


#: Of a file: its checkpoint, the version that was registered from it, its format.
Name = tuple[str, str | None, WeightsFormat]


@dataclass(frozen=True)
class Wanted:
    checkpoint: Checkpoint
    version: Version | None
    kind: WeightsFormat

    @property
    def name(self) -> Name:
        return self.checkpoint.id, None if self.version is None else self.version.id, self.kind


class Exporter:
    def __init__(self, settings: Settings, storage: Storage, answer: Answer = export_child.answer) -> None:
        self._work = Work(
            answer, settings.export_deadline_s, settings.export_memory_bytes, settings.plugins, "export"
        )
        # Once a day what a killed service left there is removed.
        self._folder = spool_folder(settings.scratch())
        self._min_free_bytes = settings.min_free_bytes
        self._storage = storage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._making: dict[Name, asyncio.Task[str]] = {}
        self._refused: dict[Name, tuple[ModelyardError, float]] = {}
        self._child: Child | None = None
        self._is_closed = False

    async def key_of(self, wanted: Wanted) -> str:
        """Where the file is in storage; made where it is not yet. Raises what stands in its way: Invalid
        for a net without such a form, Gone, and Unavailable where it takes longer than a request is held."""
        if wanted.name not in self._making:
            found = await asyncio.to_thread(stored.find, self._storage, *wanted.name)
            if found is not None:
                return found
            self._raise_remembered(wanted.name)
        task = self._making.get(wanted.name) or self._begin(wanted)
        # A caller who leaves takes the export from nobody.
        done, _ = await asyncio.wait({task}, timeout=HOLD_S)
        if not done:
            raise Unavailable(
                f"The {wanted.kind} of {wanted.checkpoint.id} is being made; ask again for the same file.",
                code="export_under_way",
                retry_after_s=RETRY_AFTER_S,
            )
        if task.cancelled():
            raise _stops()
        return task.result()

    def stop(self) -> None:
        """Whoever waits is told so now."""
        self._is_closed = True
        for task in self._making.values():
            task.cancel()
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        self.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, wanted: Wanted) -> asyncio.Task[str]:
        if self._is_closed:
            raise _stops()
        if len(self._making) >= MAX_MAKING:
            raise Unavailable(
                f"{MAX_MAKING} exports are being made or wait already; ask again in a while.",
                code="exports_busy",
                retry_after_s=RETRY_AFTER_S,
            )
        task = asyncio.create_task(self._make(wanted))
        self._making[wanted.name] = task
        task.add_done_callback(lambda ended: self._end(wanted.name, ended))
        return task

    def _end(self, name: Name, task: asyncio.Task[str]) -> None:
        """A refusal outlives those who were told to come again before it was known."""
        del self._making[name]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Invalid):
            while len(self._refused) >= MAX_REMEMBERED:
                del self._refused[next(iter(self._refused))]
            self._refused[name] = error, time.monotonic() + REMEMBERED_S
        elif error is not None:
            log.warning("export_failed", checkpoint=name[0], format=name[2], reason=str(error))

    def _raise_remembered(self, name: Name) -> None:
        error, until = self._refused.get(name, (None, 0.0))
        if error is None:
            return
        if time.monotonic() < until:
            raise type(error)(error.detail, code=error.code, errors=error.errors)
        del self._refused[name]

    async def _make(self, wanted: Wanted) -> str:
        checkpoint_id, version_id, kind = wanted.name
        run = asyncio.get_running_loop().run_in_executor
        target = self._folder / f"{uuid4().hex}.part.{kind.suffix}"
        started = time.monotonic()
        try:
            made = await run(self._thread, self._in_child, wanted, target)
            key = stored.key_of(checkpoint_id, version_id, kind, made.sha256)
            await asyncio.to_thread(self._storage.adopt, key, target)
        finally:
            target.unlink(missing_ok=True)
        took_s = round(time.monotonic() - started, 1)
        log.info("exported", checkpoint=checkpoint_id, format=kind, bytes=made.size, took_s=took_s)
        return key

    def _in_child(self, wanted: Wanted, target: Path) -> StoredFile:
        """Blocks until it is made, or until its deadline."""
        order = self._order(wanted, target)
        payload = export_child.encode(order)
        for _ in range(2):  # what ended a child once may have been the machine; twice, it is the net
            try:
                self._child = child = Child(self._work)
            except (OSError, EOFError) as error:
                raise Unavailable("Nothing can be exported at the moment; ask again.") from error
            try:
                if self._is_closed:
                    raise _stops()
                return export_child.decode(child.ask(payload))
            except Overdue:
                raise _overdue(wanted.kind, self._work.deadline_s) from None
            except (OSError, EOFError):
                log.warning("export_child_died", checkpoint=wanted.checkpoint.id, format=wanted.kind)
            finally:
                # One child an export: what it took of memory is given back.
                self._child = None
                reason = child.end()
        if self._is_closed:
            raise _stops()
        raise _deadly(wanted.kind, reason)

    def _order(self, wanted: Wanted, target: Path) -> Order:
        checkpoint, version = wanted.checkpoint, wanted.version
        self._folder.mkdir(parents=True, exist_ok=True)
        require_free(self._folder, self._min_free_bytes + ROOM * checkpoint.weights_bytes)
        try:
            weights = self._storage.fetch(checkpoint.weights_key)
            manifest = None if version is None else self._storage.fetch(version.manifest_key)
        except FileNotFoundError as error:
            raise _gone(checkpoint.id) from error
        lineage = {"job": checkpoint.job_id, "checkpoint": checkpoint.id, "step": str(checkpoint.step)}
        described = None
        if version is not None and manifest is not None:
            lineage["model"] = f"{version.model}@{version.version}"
            described = StoredFile(str(manifest), manifest.stat().st_size, version.manifest_sha256)
        return Order(
            kind=wanted.kind,
            weights=StoredFile(str(weights), checkpoint.weights_bytes, checkpoint.weights_sha256),
            manifest=described,
            lineage=lineage,
            target=str(target),
        )


def _gone(checkpoint_id: str) -> Gone:
    return Gone(f"The weights of {checkpoint_id} are no longer there.", code="collected")


def _stops() -> Unavailable:
    return Unavailable("The service stops; ask again for the same file.", code="export_under_way")


def _overdue(kind: WeightsFormat, deadline_s: float) -> Invalid:
    return Invalid(
        f"Writing {kind} took longer than the {deadline_s:g} s that an export may take. The formats pt and "
        "safetensors hold the weights; the operator may raise MODELYARD_EXPORT_DEADLINE_S.",
        code="export_deadline",
    )


def _deadly(kind: WeightsFormat, reason: str) -> Invalid:
    return Invalid(
        f"Writing {kind} ended the process that writes it, twice ({reason}); nothing else is affected. "
        "The formats pt and safetensors hold the weights.",
        code="export_crashed",
    )
