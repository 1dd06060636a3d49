"""The helper: children that are killed at their deadline, replaced, bounded, and never out of step."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid, Unavailable
from core.settings import Settings
from service.helper import MAX_WAITING, PATIENCE, Helper, plans
from tests import answers


@asynccontextmanager
async def running(home: Path, **settings: Any) -> AsyncIterator[Helper]:
    helper = Helper(plans(Settings(home=home, **{"plan_processes": 1, **settings})), answers.obey)
    helper.start()
    try:
        assert await helper.ask(b"ready?") == b"ready?"
        yield helper
    finally:
        helper.close()


async def pid_of(helper: Helper) -> int:
    return int(json.loads(await helper.ask(b"describe"))["pid"])


async def test_a_child_has_one_thread_and_stands_behind_everything_else(tmp_path: Path) -> None:
    async with running(tmp_path) as helper:
        said = json.loads(await helper.ask(b"describe"))
    assert (said["nice"], said["threads"]) == (min(os.nice(0) + 10, 19), 1)


async def test_a_child_that_spins_is_killed_at_its_deadline_and_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, plan_deadline_s=0.5) as helper:
        before = await pid_of(helper)
        started = time.monotonic()
        with pytest.raises(Invalid, match=r"longer than the 0\.5 s") as raised:
            await helper.ask(b"spin")
        assert raised.value.code == "plan_deadline"
        assert 0.5 <= time.monotonic() - started < 0.5 * PATIENCE + 1
        assert await pid_of(helper) != before
        assert not lives(before)


async def test_a_child_that_the_machine_does_not_let_run_has_more_time_but_not_for_ever(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, plan_deadline_s=0.2) as helper:
        assert await helper.ask(b"sleep 0.5") == b"sleep 0.5"
        started = time.monotonic()
        with pytest.raises(Invalid, match="plan may take"):
            await helper.ask(b"sleep 60")
        assert 0.2 * PATIENCE <= time.monotonic() - started < 10


async def test_a_spec_that_ends_two_children_is_told_so_and_the_next_one_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as helper:
        with pytest.raises(Invalid, match="twice") as raised:
            await helper.ask(b"crash")
        assert raised.value.code == "plan_crashed"
        assert await helper.ask(b"next") == b"next"


async def test_a_child_that_dies_once_costs_the_caller_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as helper:
        before = await pid_of(helper)
        asked = f"crash once {tmp_path / 'crashed'}".encode()
        assert await helper.ask(asked) == asked
        assert await pid_of(helper) != before


async def test_a_child_cannot_take_more_memory_than_a_plan_has(tmp_path: Path) -> None:
    mebibyte = 1024 * 1024
    async with running(tmp_path, plan_memory_bytes=256 * mebibyte) as helper:
        assert await helper.ask(f"take {64 * mebibyte}".encode()) != b"refused"
        assert await helper.ask(f"take {300 * mebibyte}".encode()) == b"refused"


async def test_who_comes_when_too_many_wait_is_told_to_come_again(tmp_path: Path) -> None:
    async with running(tmp_path) as helper:
        first = asyncio.create_task(helper.ask(b"sleep 1"))
        await asyncio.sleep(0.3)  # the child has it, and the queue is empty
        waiting = [asyncio.create_task(helper.ask(b"%d" % number)) for number in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as raised:
            await helper.ask(b"one too many")
        assert raised.value.retry_after_s
        assert await first == b"sleep 1"
        assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(MAX_WAITING)]


@pytest.mark.parametrize("left_after_s", [0.0, 0.2])
async def test_who_leaves_takes_nobody_elses_answer_along(tmp_path: Path, left_after_s: float) -> None:
    async with running(tmp_path) as helper:
        leaving = asyncio.create_task(helper.ask(b"sleep 0.5"))
        await asyncio.sleep(left_after_s)
        leaving.cancel()
        assert await asyncio.gather(helper.ask(b"a"), helper.ask(b"b")) == [b"a", b"b"]


async def test_once_closed_its_children_are_gone_and_who_waits_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as helper:
        child = await pid_of(helper)
        busy = asyncio.create_task(helper.ask(b"sleep 0.3"))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(helper.ask(b"waiting"))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stops"):
        await waiting
    assert await busy == b"sleep 0.3"
    await asyncio.to_thread(until_gone, child)


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while lives(pid):
        assert time.monotonic() < deadline, f"{pid} still lives after 10 s"
        time.sleep(0.02)
