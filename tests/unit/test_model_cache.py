"""What stays loaded, what goes, and what loads beside what: the cache with models that are sizes."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from service.inference.cache import ModelCache, Residence


@dataclass(eq=False)
class Model:
    size_bytes: int


@dataclass
class Loads:
    """Loads into a cache of 100 bytes, each at a price in seconds by a clock of their own."""

    order: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.cache: ModelCache[Model] = ModelCache(100, clock=lambda: self.now_s)

    async def get(self, name: str, size: int, seconds: float = 1.0) -> Model:
        def load() -> Model:
            self.order.append(name)
            self.now_s += seconds
            return Model(size)

        return await self.cache.get(name, lambda: load, size)

    def loaded(self) -> set[str]:
        return {name for name in self.order if self.cache.residence(name) is Residence.LOADED}


@dataclass
class Held:
    """A load that says when it began, and ends when it is let go."""

    size_bytes: int
    begun: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    times: int = 0

    def prepare(self) -> Callable[[], Model]:
        return self.load

    def load(self) -> Model:
        self.times += 1
        self.begun.set()
        assert self.let_go.wait(5)
        return Model(self.size_bytes)

    async def has_begun(self, within_s: float = 5) -> bool:
        return await asyncio.to_thread(self.begun.wait, within_s)


async def test_many_callers_load_once_and_a_caller_who_leaves_does_not_stop_it() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    held = Held(10)
    callers = [asyncio.create_task(cache.get("v", held.prepare, 10)) for _ in range(5)]
    assert await held.has_begun()
    callers[0].cancel()
    held.let_go.set()
    models = await asyncio.gather(*callers[1:])
    assert len({id(model) for model in models}) == 1
    assert held.times == 1
    cache.close()


async def test_of_models_that_cost_the_same_the_least_recently_used_goes_first() -> None:
    loads = Loads()
    await loads.get("a", 40)
    await loads.get("b", 40)
    await loads.get("a", 40)
    await loads.get("c", 40)
    assert loads.loaded() == {"a", "c"}
    await loads.get("a", 40)
    assert (loads.order, loads.cache.size_bytes) == (["a", "b", "c"], 80)
    await loads.get("huge", 1000)  # alone over the bound: it stays, all others go
    assert (loads.loaded(), loads.cache.size_bytes) == ({"huge"}, 1000)
    loads.cache.close()


async def test_a_model_that_is_dear_to_load_stays_longer_though_not_for_ever() -> None:
    loads = Loads()
    await loads.get("dear", 50, seconds=10)
    for turn in range(9):
        await loads.get(f"cheap {turn}", 50, seconds=1)
        assert "dear" in loads.loaded()
    for turn in range(9, 12):
        await loads.get(f"cheap {turn}", 50, seconds=1)
    assert "dear" not in loads.loaded()
    loads.cache.close()


async def test_the_price_counts_by_the_bytes_that_it_bought() -> None:
    loads = Loads()
    await loads.get("large", 80, seconds=2)  # 25 ms a byte
    await loads.get("small", 20, seconds=1)  # 50 ms a byte
    await loads.get("next", 20, seconds=1)
    assert loads.loaded() == {"small", "next"}
    loads.cache.close()


async def test_models_load_side_by_side_where_both_have_room() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    one, two = Held(40), Held(40)
    both = [asyncio.create_task(cache.get(str(n), held.prepare, 40)) for n, held in enumerate((one, two))]
    assert await one.has_begun()
    assert await two.has_begun()
    two.let_go.set()
    await both[1]
    assert cache.residence("0") is Residence.LOADING
    one.let_go.set()
    await both[0]
    assert cache.size_bytes == 80
    cache.close()


async def test_loads_that_have_no_room_beside_each_other_take_turns() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    first, large, small = Held(60), Held(60), Held(10)
    asked = {"first": first, "large": large, "small": small}
    tasks = []
    for name, held in asked.items():
        tasks.append(asyncio.create_task(cache.get(name, held.prepare, held.size_bytes)))
        await asyncio.sleep(0.02)
    assert await first.has_begun()
    assert not await large.has_begun(0.05)
    assert not small.begun.is_set()  # nobody overtakes who waits for room
    first.let_go.set()
    assert await large.has_begun()
    assert cache.residence("first") is Residence.ON_DISK  # it made room for the load, not after it
    assert await small.has_begun()
    large.let_go.set()
    small.let_go.set()
    await asyncio.gather(*tasks)
    assert cache.size_bytes == 70
    cache.close()


async def test_what_cannot_be_loaded_sends_nobody_away_and_is_tried_again() -> None:
    loads = Loads()
    await loads.get("well", 80)

    def fail() -> Callable[[], Model]:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await loads.cache.get("damaged", fail, 80)
    assert loads.loaded() == {"well"}
    await loads.get("damaged", 80)
    assert loads.loaded() == {"damaged"}
    loads.cache.close()


async def test_a_load_that_fails_gives_its_room_back() -> None:
    loads = Loads()

    def fail() -> Model:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await loads.cache.get("v", lambda: fail, 100)
    async with asyncio.timeout(5):
        await loads.get("v", 100)
    loads.cache.close()


async def test_what_was_unloaded_says_so_until_it_is_loaded_again() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    held = Held(30)
    assert cache.residence("v") is Residence.ON_DISK
    loading = asyncio.create_task(cache.get("v", held.prepare, 30))
    await asyncio.sleep(0)
    assert cache.residence("v") is Residence.LOADING
    held.let_go.set()
    await loading
    assert cache.residence("v") is Residence.LOADED
    await cache.unload(["v"])
    assert (cache.size_bytes, cache.residence("v")) == (0, Residence.UNLOADED)
    assert await cache.unload(["v"]) == 0
    await cache.get("v", held.prepare, 30)
    assert cache.residence("v") is Residence.LOADED
    await cache.get("larger", lambda: lambda: Model(100), 100)  # nobody unloaded the first by hand
    assert cache.residence("v") is Residence.ON_DISK
    cache.close()


async def test_what_is_unloaded_while_it_loads_is_kept_only_where_somebody_asks_again() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    for asks_again, expected in ((False, Residence.UNLOADED), (True, Residence.LOADED)):
        held = Held(30)
        loading = asyncio.create_task(cache.get("v", held.prepare, 30))
        assert await held.has_begun()
        await cache.unload(["v"])
        again = asyncio.create_task(cache.get("v", held.prepare, 30)) if asks_again else loading
        await asyncio.sleep(0)
        held.let_go.set()
        assert await loading is await again
        assert cache.residence("v") is expected
    cache.close()


class Filled:
    """Memory that is touched."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.data = size_bytes, bytearray(b"x" * size_bytes)


async def test_unloading_gives_the_memory_back_at_once_and_says_how_much() -> None:
    size = 64 * 1024 * 1024
    cache: ModelCache[Filled] = ModelCache(2 * size)
    gone = weakref.ref(await cache.get("v", lambda: lambda: Filled(size), size))
    await asyncio.sleep(0.2)  # the thread that loaded it lets go of it in its own time
    gc.disable()  # it must not take a collection
    try:
        returned_bytes = await cache.unload(["v"])
    finally:
        gc.enable()
    assert gone() is None
    assert 0.8 * size < returned_bytes < 1.5 * size
    cache.close()


async def test_whoever_computes_with_an_unloaded_model_keeps_it_until_they_are_done() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    model = await cache.get("v", lambda: lambda: Model(10), 10)
    await asyncio.sleep(0.2)  # as above
    gone = weakref.ref(model)
    await cache.unload(["v"])
    assert gone() is model
    del model
    assert gone() is None
    cache.close()


async def test_closing_ends_those_who_wait_for_room() -> None:
    cache: ModelCache[Model] = ModelCache(100)
    first, second = Held(60), Held(60)
    tasks = [
        asyncio.create_task(cache.get(str(n), held.prepare, 60)) for n, held in enumerate((first, second))
    ]
    assert await first.has_begun()
    await asyncio.sleep(0.02)
    cache.close()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2
    first.let_go.set()
