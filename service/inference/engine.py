"""The one thread that runs forwards, and the bound on who may wait for it."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from core.errors import Overloaded

MAX_WAITING = 64

T = TypeVar("T")


class Engine:
    """One forward at a time: torch spreads it over the cores by itself."""

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="engine", initializer=partial(use_threads, cores())
        )
        self._waiting = 0
        self._max_waiting = max_waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Raises Overloaded where too many wait already. Who leaves before their turn is not computed."""
        if self._waiting >= self._max_waiting:
            raise Overloaded(
                f"{self._max_waiting} predictions wait already; send the same request again.",
                retry_after_s=1,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    def wait(self, work: Callable[[], T]) -> T:
        """`run` for another thread than the event loop's; it is taken however many wait."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def alone() -> None:
    """torch uses no other threads for what this one computes: what is short takes longer with them."""
    use_threads(1)


def use_threads(count: int) -> None:
    """For what this thread computes. Asked first, so that torch has nothing left to initialise in it: at a
    thread's first parallel operation it would take the number that any thread has set last."""
    torch.get_num_threads()
    torch.set_num_threads(count)
