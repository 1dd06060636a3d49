"""The dispatcher and the sweep, on real databases, with a clock of our own."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

import migrations
from core import queue
from core.db.engines import Database, open_async_database, open_database
from core.db.models import BatchPrediction, Dataset, IdempotentReply, Job, Worker
from core.db.statements import jobs
from core.settings import Settings
from modelyard.specs import JobState, Wanted
from service.sweep import Sweeper

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class House:
    """A database with rows, a sweeper over it, and what was sent."""

    def __init__(self, url: str, home: Path) -> None:
        self.database: Database = open_database(url)
        self.url = url
        self.settings = Settings(home=home, lease_s=60, sweep_s=10, max_losses=3, retry_backoff_s=10)
        self.clock = 1000.0
        self.now = NOW
        self.sent: list[str] = []
        self.is_broker_away = False
        self.dataset()

    def sweeper(self) -> Sweeper:
        database = open_async_database(self.url)
        return Sweeper(database, self.settings, self.send, clock=lambda: self.clock, now=lambda: self.now)

    def send(self, pool: str) -> None:
        if self.is_broker_away:
            raise ConnectionError("refused")
        self.sent.append(pool)

    def sweep(self, *clocks: float) -> None:
        """One sweeper that looks at each of these times."""

        async def looks() -> None:
            sweeper = self.sweeper()
            try:
                for self.clock in clocks:
                    await sweeper.sweep()
            finally:
                sweeper.close()
                await sweeper._database.close()

        asyncio.run(looks())

    def add(self, row: Any) -> str:
        with self.database.write() as session:
            session.add(row)
            session.commit()
            return str(row.id)

    def dataset(self, dataset_id: str = "ds_1", **values: Any) -> str:
        row = {
            "owner": "o",
            "name": dataset_id,
            "version": 1,
            "state": "ready",
            "format": "auto",
            "options": {},
            "filename": "f",
            "source_key": "k",
            "bytes": 1,
            "sha256": "0",
            "created_at": NOW,
        }
        return self.add(Dataset(id=dataset_id, **{**row, **values}))

    def job(self, job_id: str = "job_1", **values: Any) -> str:
        row = {
            "owner": "o",
            "name": "m",
            "state": JobState.RUNNING,
            "wanted": Wanted.RUN,
            "pool": "cpu",
            "dataset_id": "ds_1",
            "spec": {},
            "warnings": [],
            "fence": 1,
            "attempt": 1,
            "progress": {},
            "metrics": {},
            "resolved": {},
            "transitions": [],
            "created_at": NOW,
            "queued_at": NOW,
        }
        return self.add(Job(id=job_id, **{**row, **values}))

    def batch(self, batch_id: str, **values: Any) -> str:
        row = {
            "owner": "o",
            "state": "running",
            "wanted": Wanted.RUN,
            "pool": "cpu",
            "model": "m",
            "version": 1,
            "version_id": "ver_1",
            "dataset_id": "ds_1",
            "format": "csv",
            "warnings": [],
            "fence": 1,
            "attempt": 1,
            "progress": {},
            "transitions": [],
            "created_at": NOW,
            "queued_at": NOW,
        }
        return self.add(BatchPrediction(id=batch_id, **{**row, **values}))

    def worker(self, worker_id: str = "wrk_1", **values: Any) -> str:
        row = {
            "host": "h",
            "pid": 1,
            "pool": "cpu",
            "devices": [],
            "slots": 2,
            "torch": "2",
            "started_at": NOW,
        }
        return self.add(Worker(id=worker_id, **{**row, **values}))

    def change(self, kind: type[Any], row_id: str, **values: Any) -> None:
        with self.database.write() as session:
            row = session.get_one(kind, row_id)
            for name, value in values.items():
                setattr(row, name, value)
            session.commit()

    def get(self, kind: type[Any], row_id: str) -> Any:
        with self.database.read() as session:
            return session.get(kind, row_id)


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    migrations.upgrade(database_url)
    house = House(database_url, tmp_path)
    yield house
    house.database.close()


def test_a_lease_that_stands_still_is_lost_and_the_job_queued_again(house: House) -> None:
    house.job()
    house.sweep(0, 59)
    assert house.get(Job, "job_1").state == JobState.RUNNING
    house.sweep(0, 60)
    job = house.get(Job, "job_1")
    assert (job.state, job.losses, job.transitions[-1]["reason"]) == (JobState.QUEUED, 1, "worker lost")
    with house.database.read() as session:
        assert [event.type for event in session.scalars(jobs.events_after("job_1", 0, 10))] == ["state"]


def test_a_lease_that_moves_is_never_lost(house: House) -> None:
    house.job()

    async def beating() -> None:
        sweeper = house.sweeper()
        for beat in range(10):
            house.clock += 59
            await asyncio.to_thread(house.change, Job, "job_1", beat=beat)
            await sweeper.sweep()
        sweeper.close()
        await sweeper._database.close()

    asyncio.run(beating())
    assert house.get(Job, "job_1").losses == 0


def test_a_new_claim_is_a_new_lease(house: House) -> None:
    house.job()

    async def claimed_again() -> None:
        sweeper = house.sweeper()
        await sweeper.sweep()
        await asyncio.to_thread(house.change, Job, "job_1", fence=2, beat=0)
        house.clock += 59
        await sweeper.sweep()
        house.clock += 59
        await sweeper.sweep()
        sweeper.close()
        await sweeper._database.close()

    asyncio.run(claimed_again())
    assert house.get(Job, "job_1").state == JobState.RUNNING


def test_later_losses_wait_and_the_third_fails(house: House) -> None:
    house.job(losses=1)
    house.sweep(0, 60)
    job = house.get(Job, "job_1")
    assert (job.state, job.losses) == (JobState.QUEUED, 2)
    assert job.not_before > NOW
    house.change(Job, "job_1", state=JobState.RUNNING)
    house.sweep(0, 60)
    job = house.get(Job, "job_1")
    assert (job.state, job.losses, job.error["code"]) == (JobState.FAILED, 3, "worker_lost")
    assert job.error["hint"]
    assert job.finished_at == NOW


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(house: House) -> None:
    house.job(wanted=Wanted.CANCEL)
    house.sweep(0, 60)
    assert house.get(Job, "job_1").state == JobState.CANCELLED


def test_a_job_cancelled_while_it_came_back_to_the_queue_is_cancelled(house: House) -> None:
    house.job(state=JobState.QUEUED, wanted=Wanted.CANCEL)
    house.sweep(0)
    assert house.get(Job, "job_1").state == JobState.CANCELLED


def test_a_job_paused_while_it_came_back_to_the_queue_is_paused(house: House) -> None:
    house.job(state=JobState.QUEUED, wanted=Wanted.PAUSE)
    house.sweep(0)
    job = house.get(Job, "job_1")
    assert (job.state, job.transitions[-1]["reason"]) == (JobState.PAUSED, "paused by its owner")


def test_a_sweep_makes_room_for_a_higher_priority_once(house: House) -> None:
    house.worker("wrk_1", slots=2, busy=2)
    early, late = NOW - timedelta(hours=1), NOW
    house.job("job_early", worker_id="wrk_1", queued_at=early)
    house.job("job_late", worker_id="wrk_1", queued_at=late)
    house.job("job_urgent", state=JobState.QUEUED, priority=1)
    house.sweep(0)
    house.sweep(0)
    assert house.get(Job, "job_late").preempted_by == "job_urgent"
    assert house.get(Job, "job_early").preempted_by is None


def test_nobody_makes_room_for_a_job_that_may_not_be_claimed(house: House) -> None:
    house.worker("wrk_1", slots=1, busy=1)
    house.job(worker_id="wrk_1")
    house.job("job_later", state=JobState.QUEUED, priority=1, not_before=NOW + timedelta(seconds=5))
    house.job("job_paused", state=JobState.PAUSED, wanted=Wanted.PAUSE, priority=1)
    house.job("job_gpu", state=JobState.QUEUED, pool="gpu", priority=1)
    house.sweep(0)
    assert house.get(Job, "job_1").preempted_by is None


def test_a_batch_prediction_makes_room_for_a_higher_priority(house: House) -> None:
    house.worker("wrk_1", slots=2, busy=2)
    house.job("job_same", worker_id="wrk_1", queued_at=NOW - timedelta(hours=1))
    house.batch("bp_1", worker_id="wrk_1")
    house.job("job_urgent", state=JobState.QUEUED, priority=1)
    house.sweep(0, 10)
    assert house.get(BatchPrediction, "bp_1").preempted_by == "job_urgent"
    assert house.get(Job, "job_same").preempted_by is None


def test_a_batch_prediction_whose_lease_stands_still_is_queued_again_and_fails_after_three(
    house: House,
) -> None:
    house.batch("bp_1")
    house.sweep(0, 59)
    assert house.get(BatchPrediction, "bp_1").state == "running"
    for losses in (1, 2, 3):
        house.change(BatchPrediction, "bp_1", state="running", fence=losses)
        house.sweep(0, 60)
        assert house.get(BatchPrediction, "bp_1").losses == losses
    batch = house.get(BatchPrediction, "bp_1")
    assert (batch.state, batch.error["code"]) == ("failed", "worker_lost")


def test_a_waiting_batch_prediction_wakes_its_pool(house: House) -> None:
    house.worker("wrk_1", slots=2)
    house.batch("bp_1", state="queued")
    house.batch("bp_later", state="queued", not_before=NOW + timedelta(seconds=5))
    house.sweep(0)
    assert house.sent == ["cpu"]


def test_two_sweepers_stop_one_job_for_one_that_waits(house: House) -> None:
    house.worker("wrk_1", slots=4, busy=4)
    for number in range(4):
        house.job(f"job_{number}", worker_id="wrk_1", queued_at=NOW + timedelta(minutes=number))
    house.job("job_urgent", state=JobState.QUEUED, priority=1)

    async def both() -> None:
        sweepers = [house.sweeper() for _ in range(3)]
        await asyncio.gather(*(one.sweep() for one in sweepers))
        for one in sweepers:
            one.close()
            await one._database.close()

    asyncio.run(both())
    marks = [house.get(Job, f"job_{number}").preempted_by for number in range(4)]
    assert marks == [None, None, None, "job_urgent"]


def test_two_sweepers_count_a_loss_once(house: House) -> None:
    house.job()

    async def both() -> None:
        sweepers = [house.sweeper(), house.sweeper()]
        house.clock = 0
        await asyncio.gather(*(one.sweep() for one in sweepers))
        house.clock = 60
        await asyncio.gather(*(one.sweep() for one in sweepers))
        for one in sweepers:
            one.close()
            await one._database.close()

    asyncio.run(both())
    assert house.get(Job, "job_1").losses == 1


def test_a_lost_ingest_is_queued_again_and_fails_after_three(house: House) -> None:
    house.dataset("ds_2", state="ingesting", fence=1)
    house.sweep(0, 60)
    assert house.get(Dataset, "ds_2").state == "queued"
    assert house.sent == ["data"]
    house.change(Dataset, "ds_2", state="ingesting", losses=2)
    house.sweep(0, 60)
    dataset = house.get(Dataset, "ds_2")
    assert (dataset.state, dataset.error["code"], dataset.revision) == ("failed", "worker_lost", 2)


def test_a_silent_worker_is_removed(house: House) -> None:
    house.worker("wrk_1")
    house.sweep(0, 59)
    assert house.get(Worker, "wrk_1") is not None
    house.sweep(0, 60)
    assert house.get(Worker, "wrk_1") is None


def test_there_is_one_wake_up_for_each_idle_slot_at_most(house: House) -> None:
    for number in range(5):
        house.job(f"job_{number}", state=JobState.QUEUED)
    house.sweep(0)
    assert house.sent == ["cpu"]  # no worker known: one, in case there is one
    house.sent.clear()
    house.worker("wrk_1", slots=2, busy=1)
    house.worker("wrk_2", slots=2, busy=0)
    house.worker("wrk_3", slots=9, pool="gpu")
    house.sweep(0)
    assert house.sent == ["cpu"] * 3
    house.sent.clear()
    house.change(Worker, "wrk_1", busy=2)
    house.change(Worker, "wrk_2", busy=2)
    house.sweep(0)
    assert house.sent == []


def test_a_job_that_may_not_be_claimed_yet_wakes_nobody(house: House) -> None:
    house.job(state=JobState.QUEUED, not_before=NOW + timedelta(seconds=5))
    house.sweep(0)
    assert house.sent == []
    house.now = NOW + timedelta(seconds=5)
    house.sweep(0)
    assert house.sent == ["cpu"]


def test_a_sweep_without_a_broker_still_finds_lost_leases(house: House) -> None:
    house.is_broker_away = True
    house.job()
    house.job("job_2", state=JobState.QUEUED)
    house.sweep(0, 60)
    assert house.get(Job, "job_1").state == JobState.QUEUED


def test_old_replies_and_abandoned_uploads_are_collected(house: House) -> None:
    spool = house.settings.scratch() / "spool"
    spool.mkdir(parents=True)
    for name, age_s in (("old.part", 90_000), ("new.part", 10)):
        (spool / name).touch()
        os.utime(spool / name, (time.time() - age_s,) * 2)
    for key, age in (("old", timedelta(hours=25)), ("new", timedelta(hours=23))):
        row = IdempotentReply(
            owner="o", route="r", key=key, body_sha256="0", status=202, reply={}, created_at=NOW - age
        )
        with house.database.write() as session:
            session.add(row)
            session.commit()
    house.sweep(0)
    assert [path.name for path in spool.iterdir()] == ["new.part"]
    assert house.get(IdempotentReply, ("o", "r", "old")) is None
    assert house.get(IdempotentReply, ("o", "r", "new")) is not None


def test_a_poke_wakes_within_moments_and_again_until_it_got_through(house: House) -> None:
    async def poked() -> None:
        database = open_async_database(house.url)
        sweeper = Sweeper(database, house.settings, house.send)
        running = asyncio.create_task(sweeper.run())
        await asyncio.sleep(0.2)
        assert house.sent == []
        sweeper.poke("gpu")
        await asyncio.sleep(0.2)
        assert (house.sent, sweeper.broker) == (["gpu"], "ok")
        house.is_broker_away = True
        sweeper.poke("cpu")
        await asyncio.sleep(0.2)
        assert (house.sent, sweeper.broker) == (["gpu"], "unreachable")
        house.is_broker_away = False
        await asyncio.sleep(1.2)
        assert (house.sent, sweeper.broker) == (["gpu", "cpu"], "ok")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        sweeper.close()
        await database.close()

    asyncio.run(poked())


def test_a_poke_while_a_wake_up_is_being_sent_gets_one_of_its_own(house: House) -> None:
    async def poked() -> list[str]:
        database = open_async_database(house.url)
        sent: list[str] = []

        def send(pool: str) -> None:
            sent.append(pool)
            if len(sent) == 1:  # a second job is committed meanwhile
                loop.call_soon_threadsafe(sweeper.poke, pool)
                time.sleep(0.1)

        loop = asyncio.get_running_loop()
        sweeper = Sweeper(database, house.settings, send)
        running = asyncio.create_task(sweeper.run())
        sweeper.poke("cpu")
        await asyncio.sleep(0.6)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        sweeper.close()
        await database.close()
        return sent

    assert asyncio.run(poked()) == ["cpu", "cpu"]


def test_a_wake_up_reaches_the_queue_of_its_pool_on_a_real_broker(broker_url: str) -> None:
    settings = Settings(broker_url=broker_url)
    queue.wake(queue.make_celery(settings), "cpu")
    client = redis.Redis.from_url(broker_url)
    try:
        assert [json.loads(one)["headers"]["task"] for one in client.lrange("modelyard:cpu", 0, -1)] == [
            queue.WAKE
        ]
        assert client.llen("modelyard:gpu") == 0
    finally:
        client.flushall()
        client.close()


def test_wake_ups_that_nobody_takes_are_so_many_at_most(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_HINTS", 3)
    app = queue.make_celery(Settings(broker_url=broker_url))
    client = redis.Redis.from_url(broker_url)
    try:
        for _ in range(5):
            queue.wake(app, "cpu")
        assert client.llen("modelyard:cpu") == 3
    finally:
        client.flushall()
        client.close()


def test_a_wake_up_to_a_broker_that_refuses_fails_at_once() -> None:
    app = queue.make_celery(Settings(broker_url="redis://127.0.0.1:1/0"))
    started = time.monotonic()
    with pytest.raises(OperationalError):
        queue.wake(app, "cpu")
    assert time.monotonic() - started < 2
