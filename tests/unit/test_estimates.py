"""How long a training takes by what others took: the law that made the past comes out again."""

import random

import pytest

from service.estimates import Training, seconds_per_batch

#: Seconds of every step, and seconds of a multiply-add.
A, B = 2e-3, 3e-11


def law(work: float) -> float:
    return A + B * work


def past(works: list[float], noise: float = 0.0, seed: int = 0) -> list[Training]:
    generator = random.Random(seed)
    return [Training(law(work) * (1 + generator.uniform(-noise, noise)), work) for work in works]


WORKS = [10.0**exponent for exponent in range(5, 11)] * 3


@pytest.mark.parametrize("work", [1e4, 1e6, 3e7, 1e9, 5e10])
def test_the_law_of_the_past_is_found_again(work: float) -> None:
    assert seconds_per_batch(past(WORKS), work) == pytest.approx(law(work), rel=1e-6)


@pytest.mark.parametrize("work", [1e6, 1e9, 1e10])
def test_a_quarter_of_wild_values_moves_it_little(work: float) -> None:
    """Every fourth took ten times as long: its machine was busy."""
    wild = [
        Training(one.seconds_per_batch * (10 if number % 4 == 0 else 1), one.work_per_batch)
        for number, one in enumerate(past(WORKS, noise=0.1))
    ]
    assert seconds_per_batch(wild, work) == pytest.approx(law(work), rel=0.5)


def test_without_a_past_there_is_no_estimate() -> None:
    assert seconds_per_batch([], 1e9) is None


def test_where_all_were_alike_more_work_costs_in_proportion_and_less_the_same() -> None:
    alike = past([1e9, 1.1e9, 1.2e9])
    typical = law(1.1e9)
    assert seconds_per_batch(alike, 1.1e9) == pytest.approx(typical)
    assert seconds_per_batch(alike, 1.1e10) == pytest.approx(10 * typical)
    assert seconds_per_batch(alike, 1e3) == pytest.approx(typical)


def test_the_nearest_in_work_say_more_than_the_newest() -> None:
    """Small nets are bound by something else than large ones; twenty of each, and each has its own law."""
    small = [Training(5e-3, 1e5 * (1 + number)) for number in range(20)]
    large = [Training(1e-9 * work, work) for work in (1e10 * (1 + number) for number in range(20))]
    assert seconds_per_batch(small + large, 1e6) == pytest.approx(5e-3)
    assert seconds_per_batch(small + large, 5e10) == pytest.approx(50)


def test_it_is_never_negative() -> None:
    falling = [Training(1.0 / work, work) for work in WORKS]
    estimated = seconds_per_batch(falling, 1e9)
    assert estimated is not None
    assert estimated >= 0
