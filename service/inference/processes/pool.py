"""The inference processes: where a version is loaded, whether all of them are up, and their end."""

import asyncio
import atexit
import contextlib
import weakref
from collections.abc import Awaitable, Sequence
from itertools import count

from torch import Tensor

from core.errors import Unavailable
from core.predict import Row
from core.settings import Settings
from service.helper import start_fork_server
from service.inference.batcher import Computed
from service.inference.files import VersionFiles
from service.inference.processes.seat import Model, Seat
from service.inference.processes.strikes import Strikes
from service.inference.processes.work import Place


class Placed:
    """A version that is loaded in one of the processes, for as long as somebody holds this."""

    def __init__(self, seat: Seat, model: Model) -> None:
        self.size_bytes = model.size_bytes
        self._seat, self._number = seat, model.number

    def compute(self, rows: Sequence[Row]) -> Awaitable[Computed[Tensor]]:
        """As a batcher wants it. Raises what `Seat.run` raises."""
        return self._seat.run(self._number, rows)


class Pool:
    """`n` processes, each with a share of the cores and a GPU of its own where there are so many."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._strikes = Strikes()
        self._seats: list[Seat] = []
        self._numbers = count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Returns at once; `is_up` says when they are. For the event loop, as all but `load`."""
        start_fork_server()
        self._loop = asyncio.get_running_loop()
        settings = self._settings
        for number in range(settings.inference_processes):
            place = Place(
                number, settings.inference_processes, settings.plugins, settings.inference_deadline_s
            )
            seat = Seat(place, self._strikes, settings.inference_load_deadline_s)
            seat.start()
            self._seats.append(seat)
        # multiprocessing waits at exit for what passes SIGTERM over; what is registered later runs earlier.
        atexit.register(self._kill)

    async def close(self) -> None:
        await asyncio.gather(*(seat.close() for seat in self._seats))
        atexit.unregister(self._kill)

    @property
    def is_up(self) -> bool:
        return all(seat.is_up for seat in self._seats)

    def require_up(self, version_id: str) -> None:
        """Raises Unavailable where a request for the version would wait for a process, or be refused."""
        self._strikes.require_free(version_id)
        if not all(seat.is_up for seat in self._seats if seat.has(version_id)):
            raise Unavailable(
                "The process with this model is being replaced; ask again in a moment.",
                code="inference_replacing",
                retry_after_s=1,
            )

    def load(self, version_id: str, files: VersionFiles) -> Placed:
        """Blocks; not for the event loop. Raises what loading raises, and Unavailable where that ended the
        process or the version is held back."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._load(version_id, files), self._loop).result()

    async def _load(self, version_id: str, files: VersionFiles) -> Placed:
        self._strikes.require_free(version_id)
        model = Model(next(self._numbers), version_id, files, files.weights.stat().st_size)
        seat = min(self._seats, key=lambda seat: (not seat.is_up, seat.size_bytes))
        await seat.load(model)
        placed = Placed(seat, model)
        weakref.finalize(placed, self._forget, seat, model.number).atexit = False
        return placed

    def _forget(self, seat: Seat, number: int) -> None:
        """Whoever dropped it last may be any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the processes with it
            self._loop.call_soon_threadsafe(seat.forget, number)

    def _kill(self) -> None:
        for seat in self._seats:
            seat.kill()
