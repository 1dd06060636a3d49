"""Who goes through together, who waits, who is refused: the batcher with nets that are lists."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from time import perf_counter

import pytest

from core.errors import Unavailable
from service.inference import batcher
from service.inference.batcher import Batcher, Computed


class Net:
    """Doubles its rows. At once, or when `let_go`; fails on a row that is 13."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.is_slow = is_slow
        self.gate, self.begun = asyncio.Event(), asyncio.Event()

    def __call__(self, rows: list[int]) -> Computed[list[int]] | Awaitable[Computed[list[int]]]:
        self.batches.append(rows)
        self.begun.set()
        return self._later(rows) if self.is_slow else self._now(rows)

    async def _later(self, rows: list[int]) -> Computed[list[int]]:
        began = perf_counter()
        await self.gate.wait()
        return replace(self._now(rows), seconds=perf_counter() - began)

    def _now(self, rows: list[int]) -> Computed[list[int]]:
        if 13 in rows:
            raise ValueError("thirteen")
        if 14 in rows:
            raise StopIteration
        return Computed([2 * row for row in rows], 0.0)

    def let_go(self) -> None:
        self.gate.set()


async def asked(batching: Batcher[int, list[int]], *rows: int) -> list[int]:
    return [answer for part in await batching.ask(rows) for answer in part.answers]


async def test_whoever_comes_in_one_turn_goes_through_together_each_with_their_own_answers() -> None:
    net = Net()
    batching = Batcher(net)
    answers = await asyncio.gather(*(asked(batching, n, n + 100) for n in range(5)))
    assert answers == [[2 * n, 2 * n + 200] for n in range(5)]
    assert len(net.batches) == 1


async def test_while_somebody_new_comes_every_other_turn_a_forward_waits_until_it_is_full() -> None:
    net = Net()
    batching = Batcher(net, max_rows=4)

    async def comes_late(n: int) -> list[int]:
        for _ in range(2 * n):
            await asyncio.sleep(0)
        return await asked(batching, n)

    answers = await asyncio.gather(*(comes_late(n) for n in range(6)))
    assert answers == [[2 * n] for n in range(6)]
    assert net.batches == [[0, 1, 2, 3], [4, 5]]


async def test_whoever_comes_during_a_forward_shares_the_next() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net)
    first = asyncio.create_task(asked(batching, 1))
    await net.begun.wait()
    others = [asyncio.create_task(asked(batching, n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    assert net.batches == [[1]]
    net.let_go()
    assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
    assert net.batches == [[1], [2, 3, 4]]


async def test_a_forward_has_no_more_rows_than_it_may_and_a_large_request_comes_in_parts() -> None:
    net = Net()
    batching = Batcher(net, max_rows=4)
    answers = await asyncio.gather(asked(batching, *range(10)), asked(batching, 1, 2), asked(batching, 3))
    assert answers == [[2 * n for n in range(10)], [2, 4], [6]]
    assert [len(rows) for rows in net.batches] == [4, 4, 4, 1]


async def test_a_request_that_makes_a_forward_fail_fails_alone() -> None:
    net = Net()
    batching = Batcher(net)
    answers = await asyncio.gather(
        asked(batching, 1), asked(batching, 13), asked(batching, 2), return_exceptions=True
    )
    assert (answers[0], answers[2]) == ([2], [4])
    assert isinstance(answers[1], ValueError)
    assert await asked(batching, 5) == [10]
    assert batching.waiting_rows == batching.waiting_bytes == 0


async def test_what_a_future_cannot_hold_reaches_its_caller_and_nobody_else() -> None:
    batching = Batcher(Net())
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asked(batching, 14)
    assert await asked(batching, 5) == [10]


async def test_whoever_leaves_before_they_are_tried_alone_keeps_nobody_waiting() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net)
    failing = [asyncio.create_task(asked(batching, n)) for n in (13, 2)]
    await net.begun.wait()
    net.begun.clear()
    net.let_go()
    await net.begun.wait()  # both failed together, and 13 is tried again alone
    net.gate.clear()
    failing[1].cancel()
    after = asyncio.create_task(asked(batching, 3))
    await asyncio.sleep(0.01)
    net.let_go()
    async with asyncio.timeout(5):
        assert await after == [6]
    with pytest.raises(ValueError, match="thirteen"):
        await failing[0]


async def test_whoever_leaves_before_their_turn_is_not_computed() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net)
    first = asyncio.create_task(asked(batching, 1))
    await net.begun.wait()
    leaving = asyncio.create_task(asked(batching, 2))
    staying = asyncio.create_task(asked(batching, 3))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0)
    net.let_go()
    assert await asyncio.gather(first, staying) == [[2], [6]]
    assert net.batches == [[1], [3]]
    assert batching.waiting_rows == 0


async def test_whoever_leaves_takes_no_room_from_those_who_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "MAX_WAITING_ROWS", 8)
    net = Net(is_slow=True)
    batching = Batcher(net)
    first = asyncio.create_task(asked(batching, 0))
    await net.begun.wait()
    leaving = [asyncio.create_task(batching.ask([n], 100)) for n in range(8)]
    await asyncio.sleep(0.01)
    assert (batching.waiting_rows, batching.waiting_bytes, batching.in_flight_rows) == (8, 800, 1)
    with pytest.raises(Unavailable):
        await asked(batching, 9)
    for task in leaving:
        task.cancel()
    await asyncio.sleep(0.01)
    assert batching.waiting_rows == batching.waiting_bytes == 0
    coming = asyncio.create_task(asked(batching, 9))
    await asyncio.sleep(0)
    net.let_go()
    assert await asyncio.gather(first, coming) == [[0], [18]]
    assert (net.batches, batching.waiting_rows, batching.in_flight_rows) == ([[0], [9]], 0, 0)


async def test_a_large_request_whose_caller_leaves_is_computed_no_further() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net, max_rows=2)
    leaving = asyncio.create_task(batching.ask(range(10), 100))
    await net.begun.wait()
    leaving.cancel()
    await asyncio.sleep(0)
    assert batching.waiting_rows == 0
    net.let_go()
    assert await asked(batching, 5) == [10]
    assert net.batches == [[0, 1], [5]]


async def test_it_says_whether_rows_would_have_to_wait() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net, max_rows=4)
    assert (batching.lets_wait(4), batching.lets_wait(5)) == (False, True)
    first = asyncio.create_task(asked(batching, 1))
    await net.begun.wait()
    assert batching.lets_wait(1)
    net.let_go()
    await first
    assert not batching.lets_wait(1)


async def test_beyond_its_bounds_it_refuses_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "MAX_WAITING_ROWS", 8)
    net = Net(is_slow=True)
    batching = Batcher(net, max_rows=4)
    first = asyncio.create_task(asked(batching, 0))
    await net.begun.wait()
    waiting = [asyncio.create_task(asked(batching, n, n)) for n in range(4)]
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="8 rows wait") as refused:
        await asked(batching, 9)
    assert refused.value.retry_after_s == 1
    net.let_go()
    await asyncio.gather(first, *waiting)
    assert await asked(batching, *range(20, 40)) == [2 * n for n in range(20, 40)]


async def test_it_refuses_whoever_would_wait_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(is_slow=True)
    batching = Batcher(net, max_rows=1)
    assert batching.wait_s == 0
    slow = asyncio.create_task(asked(batching, 0))
    await asyncio.sleep(0.05)
    net.let_go()
    await slow
    net.gate.clear()
    waiting = [asyncio.create_task(asked(batching, n)) for n in range(3)]
    await asyncio.sleep(0)
    assert batching.wait_s > 0.01
    monkeypatch.setattr(batcher, "MAX_WAIT_S", batching.wait_s / 2)
    with pytest.raises(Unavailable):
        await asked(batching, 9)
    net.let_go()
    await asyncio.gather(*waiting)


async def test_parts_say_how_long_they_waited_and_were_computed() -> None:
    net = Net(is_slow=True)
    forwards: list[int] = []
    batching = Batcher(net, on_forward=lambda rows, _seconds, _transform_s: forwards.append(rows))
    first = asyncio.create_task(batching.ask([1]))
    await net.begun.wait()
    second = asyncio.create_task(batching.ask([2, 3]))
    await asyncio.sleep(0.05)
    net.let_go()
    ((one,), (two,)) = await asyncio.gather(first, second)
    assert one.infer_s > 0.04
    assert one.queue_s < 0.04
    assert two.queue_s > 0.04
    assert (one.rows, two.rows) == (1, 2)
    assert forwards == [1, 2]


async def test_requests_wait_until_their_first_rows_are_computed() -> None:
    net = Net(is_slow=True)
    batching = Batcher(net, max_rows=2)
    first = asyncio.create_task(asked(batching, 1))
    await net.begun.wait()
    waiting = [asyncio.create_task(asked(batching, *range(n))) for n in (5, 1)]
    await asyncio.sleep(0.01)
    assert (batching.waiting_requests, batching.waiting_rows) == (2, 6)
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert batching.waiting_requests == 1
    net.let_go()
    await asyncio.gather(first, waiting[0])
    assert (batching.waiting_requests, batching.waiting_rows) == (0, 0)


async def test_where_there_is_no_room_or_nobody_to_compute_nothing_is_tried_again() -> None:
    tried: list[list[int]] = []

    def refuse(rows: list[int]) -> Computed[list[int]]:
        tried.append(rows)
        raise Unavailable("the process has ended")

    batching: Batcher[int, list[int]] = Batcher(refuse)
    answers = await asyncio.gather(*(asked(batching, n) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert tried == [[0, 1, 2]]
    assert batching.waiting_rows == 0


async def test_rows_that_are_still_being_read_count_among_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batcher, "MAX_WAITING_ROWS", 8)
    batching = Batcher(Net())
    with batching.reading(5), batching.reading(3):
        with pytest.raises(Unavailable, match="8 rows wait"), batching.reading(1):
            raise AssertionError("nothing is read for who is refused")
        with pytest.raises(Unavailable, match="8 rows wait"):
            await batching.ask([1])
    assert await asked(batching, 1) == [2]
