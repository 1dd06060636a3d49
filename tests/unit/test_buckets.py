"""Token buckets: what is given in the long run, at once, and to whom."""

from hypothesis import given
from hypothesis import strategies as st

from service.buckets import Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_given_at_once_and_then_as_much_as_comes_in() -> None:
    clock = Clock()
    buckets = Buckets(2, 5, clock=clock)
    assert [buckets.take("a") for _ in range(6)] == [0, 0, 0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    clock.now = 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0


@given(st.lists(st.floats(0, 0.3), min_size=50, max_size=300))
def test_no_more_is_given_than_burst_and_rate_allow(gaps: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(10, 5, clock=clock)
    given_ = 0
    for gap in gaps:
        clock.now += gap
        given_ += buckets.take("a") == 0
    assert given_ <= 5 + 10 * clock.now + 1e-6


def test_a_wait_that_is_waited_is_enough() -> None:
    clock = Clock()
    buckets = Buckets(3, 1, clock=clock)
    buckets.take("a")
    clock.now += buckets.take("a")
    assert buckets.take("a") == 0


def test_asking_how_long_to_wait_takes_nothing() -> None:
    buckets = Buckets(1, 1, clock=Clock())
    assert [buckets.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == 0
    assert buckets.wait_s("a") == 1


def test_what_others_took_is_taken_over_beside_what_was_taken_meanwhile() -> None:
    buckets = Buckets(1, 10, clock=Clock())
    for _ in range(4):
        buckets.take("a")
    assert buckets.collect() == {"a": 4}
    buckets.take("a")
    buckets.correct("a", 3)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]
    assert buckets.collect() == {"a": 3}


def test_a_debt_is_waited_for() -> None:
    buckets = Buckets(2, 10, clock=Clock())
    buckets.take("a")
    buckets.collect()
    buckets.correct("a", -3)
    assert buckets.take("a") == 2


def test_any_number_of_names_takes_a_bounded_number_of_buckets() -> None:
    clock = Clock()
    buckets = Buckets(1, 10, limit=100, clock=clock)
    for number in range(10_000):
        clock.now += 0.001
        buckets.take(str(number))
    assert len(buckets._buckets) <= 100
    assert [buckets.take("9999") for _ in range(10)][-1] > 0
