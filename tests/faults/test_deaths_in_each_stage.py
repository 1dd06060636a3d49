"""The child, or the whole worker, killed in each stage of a job: one terminal state, once, and the weights of
the unbroken run."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from core.data.manifest import Manifest
from core.db.models import utc_now
from core.db.statements import leases
from service import steering
from tests import exactness, injected, invariants
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

TRAINER = {"epochs": 3, "checkpoint": {"every_steps": 5, "keep": 2}}

#: Where each stage is, and at which call of it.
IN_THE_CHILD = {
    "building": ("workers.attempt:build_net", 1),
    "loading": ("workers.attempt:Attempt.open_data", 1),
    "first step": ("workers.trainer:update", 1),
    "mid-epoch": ("workers.trainer:update", 18),
    "evaluating": ("workers.trainer:evaluate", 2),
    "saving": ("core.nets.artifacts:save", 4),
    "saved": ("workers.link:Link.wait_for_commit", 2),
    "registering": ("workers.registration:verify", 1),
}
IN_THE_WORKER = {
    "claimed": ("workers.ranks:start", 1),
    "before the files": ("core.storage.local:LocalStorage.adopt", 3),
    "between the files": ("core.storage.local:LocalStorage.adopt", 4),
    "between file and row": ("workers.finish:_write_checkpoint", 2),
    "between row and what it replaces": ("workers.finish:_delete", 3),
    "registering": ("workers.finish:_register", 1),
}


@pytest.fixture(scope="module")
def unbroken(house: House, manifest: Manifest) -> exactness.Outcome:
    job_id = exactness.queue(house, manifest, TRAINER)
    assert train_one(house)
    return exactness.outcome(house, job_id)


@pytest.mark.parametrize("stage", IN_THE_CHILD)
def test_a_child_killed_in_any_stage_costs_the_job_nothing_but_an_attempt(
    house: House, manifest: Manifest, unbroken: exactness.Outcome, stage: str
) -> None:
    job_id = exactness.queue(house, manifest, TRAINER)
    place, call = IN_THE_CHILD[stage]
    injected.inject(house, place, "kill", call=call)
    assert train_one(house)
    assert homes.read_job(house, job_id).state == "queued"
    assert train_one(house)
    assert_ended_once(house, job_id, unbroken)


@pytest.mark.parametrize("call", [3, 4], ids=["weights", "state"])
@pytest.mark.parametrize(
    "eighths", [0, 4, 7, *(pytest.param(n, marks=pytest.mark.deep) for n in (1, 2, 3, 5, 6))]
)
def test_kill_mid_write_at_every_byte_range_leaves_the_checkpoint_before(
    house: House, manifest: Manifest, unbroken: exactness.Outcome, eighths: int, call: int
) -> None:
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, "core.nets.artifacts:save", f"kill_{eighths}_eighths_written", call=call)
    assert train_one(house)
    assert [row.step for row in homes.read_checkpoints(house, job_id)] == [5]
    assert train_one(house)
    assert_ended_once(house, job_id, unbroken)


def test_kill_between_rename_and_row_leaves_a_file_that_is_collected(
    house: House, manifest: Manifest, unbroken: exactness.Outcome
) -> None:
    """Also where no attempt follows that could: its job was ended meanwhile."""
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, "workers.finish:_write_checkpoint", "kill", call=2)
    assert injected.work_in_process(house) == -9
    (kept,) = homes.read_checkpoints(house, job_id)
    lose(house, job_id)
    homes.ask(house, job_id, steering.cancel)
    left = sorted(key for key in house.storage.list(f"jobs/{job_id}") if key.endswith(".pt"))
    assert len(left) == 4
    invariants.collect(house)
    left = sorted(key for key in house.storage.list(f"jobs/{job_id}") if key.endswith(".pt"))
    assert left == sorted([kept.weights_key, kept.state_key])
    shutil.rmtree(house.settings.scratch() / "jobs" / job_id)  # no attempt follows that would


def test_kill_between_rename_and_row_of_a_version_leaves_a_file_that_is_collected(
    house: House, manifest: Manifest, unbroken: exactness.Outcome
) -> None:
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, "workers.finish:_register", "kill")
    assert injected.work_in_process(house) == -9
    lose(house, job_id)
    assert train_one(house)
    assert_ended_once(house, job_id, unbroken)
    assert len(invariants.without_a_row(house)) >= 1
    invariants.require(house, [job_id])


def cases() -> Iterator[Any]:
    """To a worker it is one whatever its child does, but for a save: the others are deep."""
    for stage, where in IN_THE_CHILD.items():
        marks = [] if stage == "saving" else [pytest.mark.deep]
        yield pytest.param(*where, "kill_worker", id=f"{stage}, in the child", marks=marks)
    for stage, where in IN_THE_WORKER.items():
        yield pytest.param(*where, "kill", id=stage)


@pytest.mark.parametrize(("place", "call", "do"), list(cases()))
def test_a_worker_killed_in_any_stage_costs_the_job_nothing_but_an_attempt(
    house: House, manifest: Manifest, unbroken: exactness.Outcome, place: str, call: int, do: str
) -> None:
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, place, do, call=call)
    assert injected.work_in_process(house) == -9
    assert not injected.is_left(house)
    job = homes.read_job(house, job_id)
    assert job.state == "running"
    lose(house, job_id)
    assert train_one(house)
    assert_ended_once(house, job_id, unbroken)


def lose(house: House, job_id: str) -> None:
    """As the sweep does once the lease has run out."""
    job = homes.read_job(house, job_id)
    with house.database.write() as session:
        locked = session.scalars(leases.lock_lost_job(job_id, job.fence, job.beat)).one()
        session.add(leases.lose_job(locked, "worker lost", utc_now(), max_losses=100, backoff_s=0))
        session.commit()


def assert_ended_once(house: House, job_id: str, unbroken: exactness.Outcome) -> None:
    """With one terminal state and one version; what is in storage is what has a row, scratch is empty."""
    job = homes.read_job(house, job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert [one["state"] for one in job.transitions] == ["running", "queued", "running", "succeeded"]
    assert exactness.outcome(house, job_id) == unbroken
    assert len([version for version in homes.read_versions(house) if version.job_id == job_id]) == 1
    rows = homes.read_checkpoints(house, job_id)
    stored = sorted(key for key in house.storage.list(f"jobs/{job_id}") if key.endswith(".pt"))
    assert stored == sorted(key for row in rows for key in (row.weights_key, row.state_key))
    assert not list((house.settings.scratch() / "jobs").glob("*/*"))
    events = homes.read_events(house, job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
