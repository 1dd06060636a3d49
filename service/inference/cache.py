"""Loaded models: many callers, one load; bounded in bytes, the least recently used goes first."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Protocol, TypeVar, cast

from service.inference.engine import alone

#: So many versions are remembered as unloaded by hand; of more, the first are as if nobody had.
MAX_UNLOADED = 10_000


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Residence(Enum):
    """Where a version is. `ON_DISK` and `UNLOADED` are loaded by the next `get`; the second was sent away by
    hand, the first was never asked for or made room for others."""

    ON_DISK = "on disk"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADED = "unloaded"


class ModelCache:
    """Keys are ids of concrete versions, whose content never changes: nothing is ever stale."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # One load at a time, so that loads in flight cannot multiply the bound.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=alone)
        self._loaded: OrderedDict[str, Sized] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Sized]] = {}
        self._unloaded: OrderedDict[str, None] = OrderedDict()

    async def get(self, version_id: str, load: Callable[[], T]) -> T:
        """The loaded model; `load` runs in a thread, once however many ask. What it raises reaches all of
        them, and the next call tries again."""
        found = self._loaded.get(version_id)
        if found is not None:
            self._loaded.move_to_end(version_id)
            return cast(T, found)  # one id is only ever loaded as one kind
        task = self._loading.get(version_id)
        if task is None:
            self._unloaded.pop(version_id, None)
            task = asyncio.create_task(self._load(version_id, load))
            self._loading[version_id] = task
        # A caller who leaves must not take the load away from the others.
        return cast(T, await asyncio.shield(task))

    def unload(self, version_id: str) -> int:
        """The bytes that go, once nobody computes with it any more; 0 where it isn't loaded."""
        self._unloaded[version_id] = None
        while len(self._unloaded) > MAX_UNLOADED:
            self._unloaded.popitem(last=False)
        model = self._loaded.pop(version_id, None)
        return model.size_bytes if model is not None else 0

    def residence(self, version_id: str) -> Residence:
        if version_id in self._loading:
            return Residence.LOADING
        if version_id in self._loaded:
            return Residence.LOADED
        return Residence.UNLOADED if version_id in self._unloaded else Residence.ON_DISK

    def loaded(self) -> list[Sized]:
        """The one used last at the end."""
        return list(self._loaded.values())

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self._loaded.values())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._loaded.clear()

    async def _load(self, version_id: str, load: Callable[[], Sized]) -> Sized:
        try:
            model = await asyncio.get_running_loop().run_in_executor(self._thread, load)
        finally:
            del self._loading[version_id]
        if version_id in self._unloaded:  # meanwhile: who waited gets it, and nobody after them
            return model
        self._loaded[version_id] = model
        # The newest stays even where it alone is over the bound: its callers hold it anyway.
        while len(self._loaded) > 1 and self.size_bytes > self._limit_bytes:
            self._loaded.popitem(last=False)
        return model
