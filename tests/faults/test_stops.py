"""Pause, cancel, drain and preemption: heard wherever a job is, within 2 s, with one end."""

import contextlib
import threading
import time

import pytest
from sqlalchemy import update

from core.data.manifest import Manifest
from core.db.models import Job
from core.errors import Conflict
from service import steering
from tests import exactness, injected
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

LONG = {"epochs": 4000, "checkpoint": {"every_epochs": 4000}}
#: How long a stop may take.
SOON_S = 2.0

ASK = {"pause": steering.pause, "cancel": steering.cancel}

#: Where a job is when it is stopped: each takes 1.5 s there.
PLACES = {
    "loading": "workers.attempt:Attempt.open_data",
    "a step": "workers.trainer:update",
    "an evaluation": "workers.trainer:evaluate",
    "a save": "core.nets.artifacts:save",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wanted", ["pause", "cancel"])
def test_a_stop_is_heard_within_two_seconds_wherever_the_job_is(
    house: House, manifest: Manifest, place: str, wanted: str
) -> None:
    job_id = exactness.queue(house, manifest, LONG | {"checkpoint": {"every_steps": 3}})
    injected.inject(house, PLACES[place], "slow_here")
    thread = train_in_thread(house)
    injected.wait_until_here(house)
    homes.ask(house, job_id, ASK[wanted])
    asked = time.monotonic()
    thread.join(30)
    took_s = time.monotonic() - asked
    state = {"pause": "paused", "cancel": "cancelled"}[wanted]
    job = homes.read_job(house, job_id)
    assert (job.state, job.transitions[-1]["reason"]) == (state, f"{state} by its owner")
    assert took_s < SOON_S + injected.SLOW_S


def test_a_paused_job_is_not_claimed_and_keeps_where_it_stood(house: House, manifest: Manifest) -> None:
    job_id = exactness.queue(house, manifest, LONG)
    thread = train_in_thread(house)
    wait_for_steps(house, job_id)
    homes.ask(house, job_id, steering.pause)
    thread.join(30)
    (row,) = homes.read_checkpoints(house, job_id)
    assert row.step > 0
    assert not row.is_best
    assert not train_one(house)
    assert homes.read_job(house, job_id).state == "paused"


def test_a_preempted_job_makes_room_for_the_one_it_names_and_loses_nothing(
    house: House, manifest: Manifest
) -> None:
    job_id = exactness.queue(house, manifest, LONG)
    thread = train_in_thread(house)
    wait_for_steps(house, job_id)
    with house.database.write() as session:  # as the service does
        session.execute(update(Job).where(Job.id == job_id).values(preempted_by="job_urgent"))
        session.commit()
    thread.join(30)
    job = homes.read_job(house, job_id)
    assert (job.state, job.losses, job.preempted_by) == ("queued", 0, None)
    assert job.transitions[-1]["reason"] == "preempted by job_urgent"
    assert homes.read_checkpoints(house, job_id)
    end(house, job_id)


def test_a_cancel_that_follows_a_pause_wins(house: House, manifest: Manifest) -> None:
    job_id = exactness.queue(house, manifest, LONG | {"checkpoint": {"every_steps": 3}})
    injected.inject(house, PLACES["a save"], "slow_here")
    thread = train_in_thread(house)
    injected.wait_until_here(house)
    homes.ask(house, job_id, steering.pause)
    homes.ask(house, job_id, steering.cancel)
    thread.join(30)
    assert homes.read_job(house, job_id).state == "cancelled"


def test_a_job_that_is_resumed_before_it_had_paused_goes_back_to_the_queue(
    house: House, manifest: Manifest
) -> None:
    job_id = exactness.queue(house, manifest, LONG)
    injected.inject(house, "workers.running:Running._leave", "slow_here")
    thread = train_in_thread(house)
    wait_for_steps(house, job_id)
    homes.ask(house, job_id, steering.pause)
    injected.wait_until_here(house)
    homes.ask(house, job_id, steering.resume)
    thread.join(30)
    job = homes.read_job(house, job_id)
    assert (job.state, job.transitions[-1]["reason"]) == ("queued", "resumed by its owner")
    end(house, job_id)


@pytest.mark.parametrize("wanted", ["pause", "cancel"])
@pytest.mark.parametrize("delay_ms", [0, 5, 20, 60, 200])
def test_cancel_race_complete_and_pause_give_one_end(
    house: House, manifest: Manifest, wanted: str, delay_ms: int
) -> None:
    job_id = exactness.queue(house, manifest, {"epochs": 2})
    thread = train_in_thread(house)
    wait_for_steps(house, job_id)
    time.sleep(delay_ms / 1000)
    with contextlib.suppress(Conflict):  # it had ended
        homes.ask(house, job_id, ASK[wanted])
    thread.join(30)
    job = homes.read_job(house, job_id)
    versions = [version for version in homes.read_versions(house) if version.job_id == job_id]
    stopped = {"pause": "paused", "cancel": "cancelled"}[wanted]
    assert job.state in {"succeeded", stopped}
    assert len(versions) == (job.state == "succeeded")
    assert [one["state"] for one in job.transitions] == ["running", job.state]


def train_in_thread(house: House) -> threading.Thread:
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    return thread


def wait_for_steps(house: House, job_id: str) -> None:
    deadline = time.monotonic() + 30
    while homes.read_job(house, job_id).started_at is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def end(house: House, job_id: str) -> None:
    """So that the next test's job is the one to be claimed."""
    with house.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="cancelled"))
        session.commit()
