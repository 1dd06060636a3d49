"""One inference process, the next one after it, and the models that are loaded in whichever it is."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from torch import Tensor

from core.errors import Unavailable
from core.predict import Row
from service.inference.batcher import Computed
from service.inference.engine import MAX_WAITING, alone
from service.inference.files import VersionFiles
from service.inference.processes.process import InferenceProcess, Lost
from service.inference.processes.strikes import Strikes
from service.inference.processes.work import Place

#: While a process is being replaced so long is waited for the next one.
WAIT_S = 10.0
#: Between two tries to start one.
PAUSE_S = 1.0
#: A batch of more bytes is stacked off the event loop.
LARGE_BYTES = 256 * 1024

log = structlog.stdlib.get_logger()


@dataclass(eq=False)
class Model:
    """A version that is loaded in `process`, or was and will be in the one that took its place; None before
    it is for the first time."""

    number: int
    version_id: str
    files: VersionFiles
    size_bytes: int
    process: InferenceProcess | None = None


class Seat:
    """For the event loop. One forward at a time, and one load: so what was under way when the process ended
    is known."""

    def __init__(self, place: Place, strikes: Strikes, load_deadline_s: float) -> None:
        self._place, self._strikes, self._load_deadline_s = place, strikes, load_deadline_s
        self._models: dict[int, Model] = {}
        self._process: InferenceProcess | None = None
        self._is_up = asyncio.Event()
        self._turn, self._loading = asyncio.Lock(), asyncio.Lock()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference", initializer=alone)
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        return self._is_up.is_set()

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self._models.values())

    def has(self, version_id: str) -> bool:
        return any(model.version_id == version_id for model in self._models.values())

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def load(self, model: Model) -> None:
        """Sets its `size_bytes`. Raises what loading raises, and Unavailable where that ended the process."""
        self._models[model.number] = model
        try:
            async with AsyncExitStack() as stack:
                if self._strikes.has(model.version_id):
                    await stack.enter_async_context(self._turn)  # if it does so again, it was nobody else
                await self._load(await self._running(), model)
        except BaseException:
            self.forget(model.number)
            raise

    def forget(self, number: int) -> None:
        """Nobody asks it any more."""
        model = self._models.pop(number, None)
        if model is not None and model.process is not None:
            model.process.forget(number)

    async def run(self, number: int, rows: Sequence[Row]) -> Computed[Tensor]:
        """Raises what the forward raises, and Unavailable where it ended the process, the version is held
        back, or too many wait."""
        if self._waiting >= MAX_WAITING:
            raise Unavailable(
                f"{MAX_WAITING} predictions wait already; send the same request again.",
                code="overloaded",
                retry_after_s=1,
            )
        model = self._models[number]
        self._waiting += 1
        try:
            async with self._turn:
                self._strikes.require_free(model.version_id)
                process = await self._running()
                if model.process is not process:
                    await self._load(process, model)
                return await self._compute(process, model, rows)
        finally:
            self._waiting -= 1

    async def _compute(
        self, process: InferenceProcess, model: Model, rows: Sequence[Row]
    ) -> Computed[Tensor]:
        memory = process.memory
        if len(rows) * sum(part.nbytes for part in rows[0]) > LARGE_BYTES:
            inputs = await asyncio.get_running_loop().run_in_executor(self._thread, memory.stack, rows)
        else:
            inputs = memory.stack(rows)
        try:
            answered = await process.forward(model.number, inputs, self._place.deadline_s)
        except Lost as lost:
            raise self._unanswered(model, "a forward of it", self._place.deadline_s, lost) from lost
        return Computed(memory.take(answered.outputs), answered.seconds, answered.transform_s)

    async def _load(self, process: InferenceProcess, model: Model) -> None:
        async with self._loading:
            if model.process is process:
                return
            self._strikes.require_free(model.version_id)
            try:
                model.size_bytes = await process.load(model.number, model.files, self._load_deadline_s)
            except Lost as lost:
                raise self._unanswered(model, "loading it", self._load_deadline_s, lost) from lost
            model.process = process

    async def _running(self) -> InferenceProcess:
        """Raises Unavailable where there is none for `WAIT_S`."""
        if not self._is_up.is_set():
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._is_up.wait()
            except TimeoutError as error:
                raise self._replacing() from error
        if self._process is None or self._is_closed:
            raise self._replacing()
        return self._process

    def _unanswered(self, model: Model, what: str, deadline_s: float, lost: Lost) -> Unavailable:
        """Also notes that it may have been this version."""
        if self._is_closed or not lost.may_be_why:
            return self._replacing()
        if lost.is_overdue:
            why = f"took longer than the {deadline_s:g} s that {what} may take, and its process was ended"
        else:
            why = f"ended the processes that computed it, {what} each time"
        if self._strikes.add(model.version_id, model.files.name, why, is_last=lost.is_overdue):
            log.error("model_held_back", model=model.files.name, version=model.version_id, reason=why)
        return Unavailable(
            f"The process with {model.files.name} ended during {what}, and is being replaced; send the same "
            "request again.",
            code="inference_overdue" if lost.is_overdue else "inference_process_ended",
            retry_after_s=1,
        )

    def _replacing(self) -> Unavailable:
        if self._is_closed:
            return Unavailable("The service is stopping; ask another, or later.")
        return Unavailable(
            "The process with this model is being replaced; send the same request again.",
            code="inference_replacing",
            retry_after_s=1,
        )

    # One process after another

    async def _keep(self) -> None:
        while True:
            process = InferenceProcess(self._place, self._is_up.clear)
            self._process = process
            try:
                device = await process.start(self._thread)
                log.info("inference_process", number=self._place.number, pid=process.pid, device=device)
                await self._reload(process)
                if not process.ended.is_set():
                    self._is_up.set()
                    await process.ended.wait()
            except (OSError, EOFError, Lost):
                await asyncio.sleep(PAUSE_S)
            finally:
                how = await asyncio.shield(process.reap(self._thread))
            log.error("inference_process_ended", number=self._place.number, pid=process.pid, reason=how)

    async def _reload(self, process: InferenceProcess) -> None:
        """What cannot be loaded any more is tried again by the next request, which is told why."""
        loaded = [model for model in self._models.values() if model.process is not None]
        for model in sorted(loaded, key=lambda model: self._strikes.has(model.version_id)):
            if model.number in self._models and not process.ended.is_set():
                try:
                    await self._load(process, model)
                except Exception as error:
                    log.warning("model_not_reloaded", model=model.files.name, reason=str(error))
