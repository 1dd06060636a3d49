"""Loaded models: many callers, one load; bounded in bytes, the least recently used goes first."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar, cast


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class ModelCache:
    """Keys are ids of concrete versions, whose content never changes: nothing is ever stale."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # One load at a time, so that loads in flight cannot multiply the bound.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loaded: OrderedDict[str, Sized] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Sized]] = {}

    async def get(self, version_id: str, load: Callable[[], T]) -> T:
        """The loaded model; `load` runs in a thread, once however many ask. What it raises reaches all of
        them, and the next call tries again."""
        found = self._loaded.get(version_id)
        if found is not None:
            self._loaded.move_to_end(version_id)
            return cast(T, found)  # one id is only ever loaded as one kind
        task = self._loading.get(version_id)
        if task is None:
            task = asyncio.create_task(self._load(version_id, load))
            self._loading[version_id] = task
        # A caller who leaves must not take the load away from the others.
        return cast(T, await asyncio.shield(task))

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
        self._loaded[version_id] = model
        # The newest stays even where it alone is over the bound: its callers hold it anyway.
        while len(self._loaded) > 1 and self.size_bytes > self._limit_bytes:
            self._loaded.popitem(last=False)
        return model
