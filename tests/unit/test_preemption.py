"""Who is stopped for a job of a higher priority: the lowest, of these the youngest, and nobody needlessly."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.preemption import Running, Waiting, choose

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def running(
    name: str, priority: int = 0, *, minute: int = 0, worker: str | None = "w", **more: Any
) -> Running:
    fields = {"devices": 1, "preempted_by": None} | more
    queued_at = AT + timedelta(minutes=minute)
    return Running(id=name, fence=1, priority=priority, worker_id=worker, queued_at=queued_at, **fields)


def chosen(
    waiting: list[tuple[str, int, int]], jobs: list[Running], slots: dict[str, int]
) -> dict[str, list[str]]:
    """`waiting` are (id, priority, devices), in the order of claims."""
    found = choose([Waiting(*one) for one in waiting], jobs, slots)
    return {name: sorted(one.id for one in victims) for name, victims in found.items()}


def test_the_lowest_and_of_these_the_youngest_makes_room() -> None:
    jobs = [running("old", 0), running("young", 0, minute=5), running("higher", 1, minute=9)]
    assert chosen([("new", 2, 1)], jobs, {"w": 3}) == {"new": ["young"]}


def test_the_lowest_of_all_workers_makes_room() -> None:
    jobs = [running("a", 3, worker="v"), running("b", 1, worker="w"), running("c", 2, worker="x")]
    assert chosen([("new", 5, 1)], jobs, {"v": 1, "w": 1, "x": 1}) == {"new": ["b"]}


@pytest.mark.parametrize("priority", [0, -1])
def test_an_equal_or_lower_priority_never_preempts(priority: int) -> None:
    assert chosen([("new", priority, 1)], [running("a", 0)], {"w": 1}) == {}


def test_nobody_is_stopped_while_a_slot_is_free() -> None:
    assert chosen([("new", 9, 1)], [running("a")], {"w": 2}) == {}
    assert chosen([("new", 9, 1)], [running("a")], {"w": 1, "v": 1}) == {}


def test_a_free_slot_serves_one_job_and_the_next_preempts() -> None:
    waiting = [("first", 9, 1), ("second", 8, 1)]
    assert chosen(waiting, [running("a")], {"w": 2}) == {"second": ["a"]}


def test_several_who_wait_stop_as_many_and_no_more() -> None:
    jobs = [running(name, minute=place) for place, name in enumerate("abc")]
    waiting = [("x", 3, 1), ("y", 2, 1), ("z", 1, 1), ("late", 1, 1)]
    assert chosen(waiting, jobs, {"w": 3}) == {"x": ["c"], "y": ["b"], "z": ["a"]}


def test_a_job_for_which_one_stops_already_stops_no_other() -> None:
    jobs = [running("a", preempted_by="x"), running("b")]
    assert chosen([("x", 9, 1)], jobs, {"w": 2}) == {}
    assert chosen([("x", 9, 1), ("y", 9, 1)], jobs, {"w": 2}) == {"y": ["b"]}


def test_a_job_for_several_devices_gets_them_of_one_worker() -> None:
    jobs = [
        running("a", worker="v"),
        running("b", worker="v"),
        running("c", worker="w"),
        running("d", 7, worker="w"),
    ]
    assert chosen([("x", 5, 2)], jobs, {"v": 2, "w": 2}) == {"x": ["a", "b"]}


def test_free_slots_count_and_a_needless_one_goes_on() -> None:
    jobs = [running("small", 0), running("large", 1, devices=2)]
    assert chosen([("x", 5, 2)], jobs, {"w": 4}) == {"x": ["small"]}
    assert chosen([("x", 5, 3)], jobs, {"w": 4}) == {"x": ["large"]}


def test_where_no_room_can_be_made_those_behind_stop_nobody_for_it() -> None:
    """The worker waits for the large job, and claims nothing behind it: a freed slot would stand empty."""
    jobs = [running("high", 9), running("low", 0)]
    assert chosen([("large", 5, 2), ("small", 4, 1)], jobs, {"w": 2}) == {}
    other = [*jobs, running("elsewhere", 0, worker="v")]
    assert chosen([("large", 5, 2), ("small", 4, 1)], other, {"w": 2, "v": 1}) == {"small": ["elsewhere"]}


def test_a_job_larger_than_every_worker_stops_nobody_and_blocks_nobody() -> None:
    waiting = [("huge", 9, 4), ("small", 8, 1)]
    assert chosen(waiting, [running("a")], {"w": 1}) == {"small": ["a"]}


def test_a_job_of_a_worker_that_is_not_known_is_left_alone() -> None:
    assert chosen([("x", 9, 1)], [running("a", worker=None), running("b", worker="gone")], {}) == {}
