"""Makes what a loop will ask for before it asks: the same items, in the same order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.beside import alone

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    """`error` is what the items ended with."""

    error: BaseException | None = None


def ahead(items: Generator[T], depth: int) -> Generator[T]:
    """A thread takes from `items` until it is `depth` before the loop. What `items` raises is raised here,
    in its turn. Closing the generator waits for the item that is being made; then `items` is closed and the
    thread is gone."""
    made: queue.SimpleQueue[_Item[T] | _End] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    is_left = threading.Event()

    def fill() -> None:
        alone()
        try:
            with closing(items):
                while True:
                    room.acquire()
                    if is_left.is_set():
                        return
                    made.put(_Item(next(items)))
        except StopIteration:
            made.put(_End())
        except BaseException as error:  # whatever it is belongs to the loop
            made.put(_End(error))

    thread = threading.Thread(target=fill, name="ahead", daemon=True)
    thread.start()
    try:
        while isinstance(found := made.get(), _Item):
            room.release()
            yield found.value
        if found.error is not None:
            raise found.error
    finally:
        is_left.set()
        room.release()
        thread.join()


def in_threads(make: Callable[[S], T], wanted: Iterable[S], threads: int) -> Generator[T]:
    """`make` of each, in order; so many at once, and no more than twice as many are kept."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="make", initializer=alone)
    waiting: deque[Future[T]] = deque()
    try:
        for each in wanted:
            waiting.append(pool.submit(make, each))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
