"""What is made ahead of a loop: the same items, in order, and nothing left when the loop leaves."""

import threading
import time
from collections.abc import Callable, Generator

import pytest

from workers.prefetch import ahead, in_threads

Many = Callable[[Generator[int]], Generator[int]]


def counted(count: int, made: list[int]) -> Generator[int]:
    for number in range(count):
        made.append(number)
        yield number


def by_ahead(items: Generator[int]) -> Generator[int]:
    return ahead(items, 2)


def by_threads(items: Generator[int]) -> Generator[int]:
    return in_threads(lambda number: number, items, 2)


@pytest.mark.parametrize("run", [by_ahead, by_threads])
def test_items_come_once_and_in_order(run: Many) -> None:
    assert list(run(counted(100, []))) == list(range(100))


def test_in_threads_keeps_the_order_where_later_ones_are_done_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.01 if number % 2 == 0 else 0)
        return number

    assert list(in_threads(slow_when_even, range(12), 3)) == list(range(12))


@pytest.mark.parametrize(("run", "most"), [(by_ahead, 3), (by_threads, 4)])
def test_no_more_is_made_than_the_bound(run: Many, most: int) -> None:
    made: list[int] = []
    items = run(counted(100, made))
    next(items)
    time.sleep(0.1)
    assert 1 < len(made) <= most
    items.close()


@pytest.mark.parametrize("run", [by_ahead, by_threads])
def test_a_loop_that_leaves_leaves_no_thread(run: Many) -> None:
    before = threading.active_count()
    for number in (items := run(counted(100, []))):
        if number == 5:
            break
    items.close()
    assert threading.active_count() == before


def test_what_is_iterated_is_closed_when_the_loop_leaves() -> None:
    closed = threading.Event()

    def watched() -> Generator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    items = ahead(watched(), 2)
    next(items)
    items.close()
    assert closed.is_set()


@pytest.mark.parametrize("run", [by_ahead, by_threads])
def test_an_error_comes_in_its_turn(run: Many) -> None:
    def breaks() -> Generator[int]:
        yield from range(3)
        raise KeyError("the fourth")

    found: list[int] = []
    with pytest.raises(KeyError, match="the fourth"):
        found.extend(run(breaks()))
    assert found == ([0, 1, 2] if run is by_ahead else [0])  # a pool asks for more before it hands out


def test_an_error_of_one_made_in_threads_comes_in_its_turn() -> None:
    def breaks_at_three(number: int) -> int:
        if number == 3:
            raise KeyError("the fourth")
        return number

    found: list[int] = []
    with pytest.raises(KeyError, match="the fourth"):
        found.extend(in_threads(breaks_at_three, range(10), 2))
    assert found == [0, 1, 2]
