"""`estimated_seconds` of a plan, from rows as workers leave them, on both databases."""

from datetime import timedelta
from typing import Any

import pytest

from core.db.models import Job, utc_now
from service import estimates
from tests.running_service import Owner, RunningService

#: Seconds of a step, and of a multiply-add; multiply-adds of a row: inputs times outputs of the net.
STEP_S, ADD_S = 0.01, 1e-7
ADDS = 4 * 3


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "KEPT_S", 0.0)


def plan(me: Owner, epochs: int) -> dict[str, Any]:
    reply = me.client.post("/v1/plans", json=me.job(trainer={"epochs": epochs, "batch_size": 64}))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def ended(me: Owner, took_s: float, *, step: int | None = None, **values: Any) -> Job:
    """A job that was posted, ran for so long, and succeeded."""
    job_id = me.post_job(trainer={"epochs": 10, "batch_size": 64})["id"]
    with me.database.write() as session:
        job = session.get_one(Job, job_id)
        steps = job.progress["steps"]
        job.state, job.attempt = "succeeded", 1
        job.progress = {**job.progress, "step": steps if step is None else step}
        job.started_at = utc_now() - timedelta(seconds=took_s)
        job.finished_at = job.started_at + timedelta(seconds=took_s)
        for name, value in values.items():
            setattr(job, name, value)
        session.commit()
        return job


def forget(me: Owner) -> None:
    with me.database.write() as session:
        session.execute(Job.__table__.update().values(work=None))
        session.commit()


def test_a_plan_knows_no_time_until_a_training_has_ended_and_then_its_law(
    service: RunningService, me: Owner
) -> None:
    forget(me)
    me.dataset()
    assert plan(me, 1)["estimated_seconds"] is None
    job = ended(me, 8.0)
    assert job.work == pytest.approx(3 * ADDS * 64 * job.progress["steps"])
    assert plan(me, 10)["estimated_seconds"] == pytest.approx(8.0)
    assert plan(me, 5)["estimated_seconds"] == pytest.approx(4.0)


def test_work_and_steps_are_told_apart_where_the_past_allows_it(service: RunningService, me: Owner) -> None:
    """The test writes rows of a known law; the plan's own work and steps then give its time."""
    forget(me)
    me.dataset()
    for factor in (1, 10, 100, 1000):
        job = ended(me, 1.0)
        assert job.work is not None
        steps, work = job.progress["steps"], job.work * factor
        with me.database.write() as session:
            row = session.get_one(Job, job.id)
            row.work = work
            row.started_at = row.finished_at - timedelta(seconds=STEP_S * steps + ADD_S * work)
            session.commit()
    told = plan(me, 10)
    expected = STEP_S * told["steps"] + ADD_S * 3 * ADDS * 64 * told["steps"]
    assert told["estimated_seconds"] == pytest.approx(expected, rel=1e-3)


def test_the_work_of_a_job_is_that_of_every_batch_on_each_device(service: RunningService, me: Owner) -> None:
    """81 rows to train on, 18 a batch: 5 batches an epoch, or 2 steps of 4 batches."""
    me.dataset()
    told = {
        words: me.row(me.post_job(trainer={"epochs": 1, "batch_size": 18} | dict(words))["id"])
        for words in ((), (("accumulate", 4),), (("devices", 2),))
    }
    plain, accumulated, shared = told.values()
    assert (plain.progress["steps"], accumulated.progress["steps"]) == (5, 2)
    assert plain.work == pytest.approx(3 * ADDS * 18 * 5)
    assert accumulated.work == pytest.approx(3 * ADDS * 72 * 2)
    assert shared.work == pytest.approx(plain.work / 2)


def test_a_step_of_several_batches_takes_as_long_as_they_do(service: RunningService, me: Owner) -> None:
    forget(me)
    me.dataset()
    job = ended(me, 10.0)
    assert plan(me, 10)["estimated_seconds"] == pytest.approx(10.0)
    # 2 batches an epoch, in one step of two: the same batches, and about the same time.
    trainer = {"epochs": 10, "batch_size": 64, "accumulate": 2}
    reply = me.client.post("/v1/plans", json=me.job(trainer=trainer)).json()
    assert reply["steps"] == job.progress["steps"] // 2
    assert reply["estimated_seconds"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "values",
    [{"state": "failed"}, {"attempt": 2}, {"pool": "gpu"}, {"work": None}, {"started_at": None}],
    ids=str,
)
def test_what_says_nothing_of_this_device_does_not_count(
    service: RunningService, me: Owner, values: dict[str, Any]
) -> None:
    forget(me)
    me.dataset()
    ended(me, 8.0, **values)
    assert plan(me, 10)["estimated_seconds"] is None


def test_one_that_stopped_early_took_the_time_of_the_steps_it_made(
    service: RunningService, me: Owner
) -> None:
    forget(me)
    me.dataset()
    job = ended(me, 1.0)
    steps = job.progress["steps"]
    forget(me)
    ended(me, 1.0, step=steps // 4)
    assert plan(me, 10)["estimated_seconds"] == pytest.approx(steps / (steps // 4))
