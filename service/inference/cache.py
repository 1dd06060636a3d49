"""Loaded models: many callers, one load; bounded in bytes; what is cheap to have back goes first.

Which one goes is GreedyDual-Size's choice (Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", USENIX
USITS 1997, https://www.usenix.org/conference/usits-97/cost-aware-www-proxy-caching-algorithms, section 4). A
model p that took c(p) seconds to load and holds s(p) bytes has

    H(p) = L + c(p) / s(p)

as it is loaded and again whenever it is asked for. The model of the least H goes, and L becomes its H: so
what nobody asks for sinks below what comes in, the sooner the less a byte of it cost. Of equal ones the one
that was asked longest ago goes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from service.inference.engine import alone
from service.inference.memory import give_back

#: So many models load side by side: what one reads or fetches from afar keeps no other waiting.
MAX_LOADS = 4

#: So many versions are remembered as unloaded by hand; of more, the first are as if nobody had.
MAX_UNLOADED = 10_000


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


M = TypeVar("M", bound=Sized)
T = TypeVar("T")

#: Reads and checks what is to be loaded, holding none of it; what it returns loads it.
Prepare = Callable[[], Callable[[], M]]


class Residence(Enum):
    """Where a version is. `ON_DISK` and `UNLOADED` are loaded by the next `get`; the second was sent away by
    hand, the first was never asked for or made room for others."""

    ON_DISK = "on disk"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADED = "unloaded"


@dataclass(eq=False, slots=True)
class Kept(Generic[M]):
    """`worth` is c / s, `rank` is H."""

    model: M
    size_bytes: int
    worth: float
    rank: float


class ModelCache(Generic[M]):
    """Keys are ids of concrete versions, whose content never changes: nothing is ever stale."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = perf_counter) -> None:
        self._limit_bytes, self._clock = limit_bytes, clock
        self._threads = ThreadPoolExecutor(MAX_LOADS, thread_name_prefix="load", initializer=alone)
        self._kept: OrderedDict[str, Kept[M]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[M]] = {}
        self._unloaded: OrderedDict[str, None] = OrderedDict()
        self._inflation = 0.0  # L
        self._reserved_bytes = 0
        self._turn, self._has_ended = asyncio.Lock(), asyncio.Event()

    def find(self, version_id: str) -> M | None:
        """The loaded model, now asked for once more; None where it isn't loaded."""
        kept = self._kept.get(version_id)
        if kept is None:
            return None
        kept.rank = self._inflation + kept.worth
        self._kept.move_to_end(version_id)
        return kept.model

    async def get(self, version_id: str, prepare: Prepare[M], size_bytes: int) -> M:
        """The loaded model. It is loaded in a thread, once however many ask, as soon as there is room for
        `size_bytes`, which is at most what it will hold. What `prepare` and the load raise reaches all who
        ask, and the next call tries again."""
        found = self.find(version_id)
        if found is not None:
            return found
        self._unloaded.pop(version_id, None)
        task = self._loading.get(version_id)
        if task is None:
            task = asyncio.create_task(self._load(version_id, prepare, size_bytes))
            self._loading[version_id] = task
        # A caller who leaves must not take the load away from the others.
        return await asyncio.shield(task)

    def peek(self, version_id: str) -> M | None:
        """As `find`, for who only looks."""
        kept = self._kept.get(version_id)
        return kept.model if kept is not None else None

    async def unload(self, version_ids: Iterable[str]) -> int:
        """By how many bytes the process shrank. What somebody computes with goes after their answer."""
        named = list(version_ids)
        self._unloaded.update(dict.fromkeys(named))
        while len(self._unloaded) > MAX_UNLOADED:
            self._unloaded.popitem(last=False)
        gone = [self._kept.pop(one) for one in named if one in self._kept]
        return await asyncio.to_thread(give_back, gone) if gone else 0

    def residence(self, version_id: str) -> Residence:
        if version_id in self._loading:
            return Residence.LOADING
        if version_id in self._kept:
            return Residence.LOADED
        return Residence.UNLOADED if version_id in self._unloaded else Residence.ON_DISK

    def loaded(self) -> list[M]:
        """The one used last at the end."""
        return [kept.model for kept in self._kept.values()]

    @property
    def size_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()  # it may be waiting for room, that is for another that is cancelled
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._kept.clear()

    async def _load(self, version_id: str, prepare: Prepare[M], size_bytes: int) -> M:
        try:
            # First what may fail: a damaged version must not send others away.
            load, prepared_s = await self._timed(prepare)
            async with self._room(size_bytes):
                await _drop(self._evicted())
                model, loaded_s = await self._timed(load)
        finally:
            del self._loading[version_id]
        if version_id in self._unloaded:  # meanwhile: who waited gets it, and nobody after them
            return model
        worth = (prepared_s + loaded_s) / max(1, model.size_bytes)
        gone = self._evicted(model.size_bytes)
        self._kept[version_id] = Kept(model, model.size_bytes, worth, self._inflation + worth)
        await _drop(gone)  # some only where it holds more than was said
        return model

    @asynccontextmanager
    async def _room(self, size_bytes: int) -> AsyncIterator[None]:
        """Reserved for one load, as they come. Who finds none beside the loads under way waits for one of
        them to end; alone, the largest is loaded too, since its callers hold it anyway."""
        async with self._turn:
            while self._reserved_bytes and self._reserved_bytes + size_bytes > self._limit_bytes:
                self._has_ended.clear()
                await self._has_ended.wait()
            self._reserved_bytes += size_bytes
        try:
            yield
        finally:
            self._reserved_bytes -= size_bytes
            self._has_ended.set()

    def _evicted(self, more_bytes: int = 0) -> list[Kept[M]]:
        """Out of the cache, until it fits in beside what is reserved and `more_bytes`."""
        held = self.size_bytes + self._reserved_bytes + more_bytes
        gone = []
        while self._kept and held > self._limit_bytes:
            version_id = min(self._kept, key=lambda kept_id: self._kept[kept_id].rank)
            kept = self._kept.pop(version_id)
            self._inflation = kept.rank
            held -= kept.size_bytes
            gone.append(kept)
        return gone

    async def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        timed = partial(_timed, work, self._clock)
        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)


async def _drop(gone: list[Kept[M]]) -> None:
    """In a thread, since unmapping takes time. What the allocator keeps of it the next load takes."""
    if gone:
        await asyncio.to_thread(gone.clear)


def _timed(work: Callable[[], T], clock: Callable[[], float]) -> tuple[T, float]:
    began = clock()
    return work(), clock() - began
