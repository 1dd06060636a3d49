"""How many slots of a worker its jobs hold: what a worker claims beside what it has."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from core.data.manifest import Manifest
from core.db.engines import open_async_database
from core.db.models import Job, utc_now
from service import preemption
from tests import house as homes
from workers import children
from workers.house import House
from workers.tasks import claim, wake

SLOTS = 2


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(database_url, tmp_path, slots=SLOTS)
    yield opened
    opened.database.close()


@pytest.fixture
def manifest(house: House, tmp_path: Path) -> Manifest:
    return homes.add_digits(house, tmp_path)


def queue(house: House, manifest: Manifest, devices: int) -> str:
    job_id = homes.add_job(house, manifest)
    with house.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(devices=devices))
        session.commit()
    return job_id


def test_a_worker_claims_until_its_slots_are_held(house: House, manifest: Manifest) -> None:
    waiting = [queue(house, manifest, 1) for _ in range(3)]
    claimed = []
    with contextlib.ExitStack() as held:
        while (job := claim(house)) is not None:
            claimed.append(job.id)
            numbers = held.enter_context(house.busy(job.devices))
            assert numbers == [len(claimed) - 1]
        assert (claimed, house.free) == (waiting[:SLOTS], 0)
    last = claim(house)
    assert last is not None
    assert (last.id, last.worker_id) == (waiting[2], house.worker_id)


def test_a_job_for_two_devices_waits_for_both_slots_and_holds_them(house: House, manifest: Manifest) -> None:
    large, small = queue(house, manifest, 2), queue(house, manifest, 1)
    with house.busy():
        assert claim(house) is None
    job = claim(house)
    assert job is not None
    assert job.id == large
    with house.busy(job.devices):
        assert claim(house) is None
    after = claim(house)
    assert after is not None
    assert after.id == small


def test_a_low_priority_gives_its_only_slot_to_a_higher_one_and_goes_on_after_it(
    house: House, manifest: Manifest, database_url: str, tmp_path: Path
) -> None:
    """The dispatcher's look and a worker's thread, with real children, from the mark to both ends."""
    children.preload()
    worker = homes.open_house(database_url, tmp_path, slots=1)
    worker.open()
    low = homes.add_job(house, manifest, epochs=60)
    thread = threading.Thread(target=wake, args=(worker,))
    thread.start()
    wait_for(lambda: homes.read_job(house, low).progress.get("step", 0) > 0)
    high = homes.add_job(house, manifest, epochs=1)
    with house.database.write() as session:
        session.execute(update(Job).where(Job.id == high).values(priority=1))
        session.commit()
    asyncio.run(look(database_url))
    asyncio.run(look(database_url))  # while it stops: nobody else is asked
    thread.join(60)
    assert not thread.is_alive()
    worker.close()
    reasons = [one["reason"] for one in homes.read_job(house, low).transitions]
    assert reasons[1] == f"preempted by {high}"
    states = [(one["state"], one["at"]) for one in homes.read_job(house, low).transitions]
    assert [state for state, _ in states] == ["running", "queued", "running", "succeeded"]
    ended = homes.read_job(house, high).transitions[-1]
    assert ended["state"] == "succeeded"
    assert states[1][1] < ended["at"] <= states[2][1]
    job = homes.read_job(house, low)
    assert (job.attempt, job.losses, job.preempted_by) == (2, 0, None)


async def look(database_url: str) -> None:
    """As the dispatcher does when a job is posted."""
    database = open_async_database(database_url)
    try:
        await preemption.preempt(database, "cpu", utc_now())
    finally:
        await database.close()


def wait_for(claim: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
