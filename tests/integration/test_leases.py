"""Claims, leases and moves of jobs, on both databases: one owner at a time, no arrow but those drawn."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select

from core.db.engines import Database, open_database
from core.db.models import Dataset, Event, Job
from core.db.statements import datasets, jobs, leases, preemption
from core.errors import Conflict
from modelyard.specs import JobState
from service import steering
from tests.rows import AT, add_dataset, add_job, create_tables

THREADS = 6
LIMITS: dict[str, Any] = {"max_losses": 3, "backoff_s": 10.0}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    create_tables(opened)
    yield opened
    opened.close()


def queue(database: Database, *jobs_fields: dict[str, Any]) -> list[str]:
    """Adds a dataset and jobs of it; returns the jobs' ids."""
    with database.write() as session:
        dataset_id = add_dataset(session).id
        found = [add_job(session, dataset_id, **fields).id for fields in jobs_fields]
        session.commit()
    return found


def claim(
    database: Database, pool: str = "cpu", now: datetime = AT, *, slots: int = 1, free: int = 1
) -> Job | None:
    """As a worker claims."""
    with database.write() as session:
        statement = leases.claim_job(pool, now, worker_id="wrk_1", slots=slots, free=free)
        job: Job | None = session.scalar(statement)
        if job is not None:
            session.add(jobs.move(job, JobState.RUNNING, "claimed", now))
        session.commit()
    return job


def read(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def at_once(act: Callable[[], Any]) -> list[Any]:
    """What `act` returned in each of several threads that started together."""
    barrier = threading.Barrier(THREADS)

    def run(_number: int) -> Any:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


# Claims


def test_of_many_workers_that_claim_at_once_each_job_goes_to_one(database: Database) -> None:
    queued = queue(database, *({} for _ in range(24)))

    def claim_all() -> list[tuple[str, int, int]]:
        claimed = []
        while (job := claim(database)) is not None:
            claimed.append((job.id, job.fence, job.attempt))
        return claimed

    claimed = [each for found in at_once(claim_all) for each in found]
    assert sorted(claimed) == sorted((job_id, 1, 1) for job_id in queued)


def test_dup_message_five_wake_ups_for_one_job_are_one_claim(database: Database) -> None:
    (job_id,) = queue(database, {})
    claimed = [job for job in at_once(lambda: claim(database)) if job is not None]
    assert [job.id for job in claimed] == [job_id]
    assert (read(database, job_id).state, read(database, job_id).attempt) == ("running", 1)


def test_the_best_job_is_claimed_first_by_priority_then_by_age(database: Database) -> None:
    later, minute = AT + timedelta(hours=1), timedelta(minutes=1)
    queued = queue(
        database,
        {"priority": 0, "queued_at": AT + minute},
        {"priority": 0, "queued_at": AT},
        {"priority": 9, "queued_at": AT + 2 * minute},
        {"priority": -1, "queued_at": AT - minute},
    )
    claimed = [claim(database, now=later) for _ in range(4)]
    assert [job.id for job in claimed if job is not None] == [queued[place] for place in (2, 1, 0, 3)]


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "gpu"},
        {"wanted": "cancel"},
        {"wanted": "pause"},
        {"state": "paused", "wanted": "pause"},
        {"not_before": AT + timedelta(seconds=1)},
        {"state": "running"},
        {"state": "succeeded"},
    ],
    ids=[
        "of another pool",
        "not wanted",
        "to be paused",
        "paused",
        "waiting after a loss",
        "running",
        "ended",
    ],
)
def test_a_job_that_is_not_claimable_stays(database: Database, fields: dict[str, Any]) -> None:
    (job_id,) = queue(database, fields)
    assert claim(database) is None
    assert read(database, job_id).fence == 0


def test_a_claim_after_the_wait_forgets_the_wait(database: Database) -> None:
    (job_id,) = queue(database, {"not_before": AT + timedelta(seconds=10)})
    assert claim(database, now=AT + timedelta(seconds=10)) is not None
    assert read(database, job_id).not_before is None


def test_a_job_for_more_slots_than_are_free_is_waited_for(database: Database) -> None:
    later = {"queued_at": AT + timedelta(minutes=1)}
    large, small = queue(database, {"devices": 2}, later)
    assert claim(database, slots=2, free=1) is None
    claimed = claim(database, slots=2, free=2)
    assert claimed is not None
    assert (claimed.id, claimed.devices, claimed.worker_id) == (large, 2, "wrk_1")
    after = claim(database, slots=2, free=1)
    assert after is not None
    assert after.id == small


def test_a_job_for_more_slots_than_a_worker_has_blocks_nobody_there(database: Database) -> None:
    _, small = queue(database, {"devices": 4, "priority": 9}, {})
    claimed = claim(database, slots=2, free=1)
    assert claimed is not None
    assert claimed.id == small
    assert claim(database, slots=2, free=2) is None


def test_a_claim_starts_without_the_mark_of_an_earlier_attempt(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        session.execute(preemption.mark_preempted(job_id, 1, "job_2"))
        session.commit()
    with database.write() as session:
        assert session.execute(leases.beat_job(job_id, 1)).one() == ("run", "job_2")
        job = session.scalars(jobs.lock_job(job_id)).one()
        session.add(jobs.leave(job, "preempted by job_2", AT))
        session.commit()
    row = read(database, job_id)
    assert (row.state, row.preempted_by, row.transitions[-1]["reason"]) == (
        "queued",
        None,
        "preempted by job_2",
    )


def test_a_mark_is_only_for_the_attempt_that_it_was_meant_for(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        session.execute(preemption.mark_preempted(job_id, 0, "job_2"))
        session.execute(preemption.mark_preempted(job_id, 1, "job_3"))
        session.execute(preemption.mark_preempted(job_id, 1, "job_4"))
        session.commit()
    assert read(database, job_id).preempted_by == "job_3"


@pytest.mark.parametrize(
    ("wanted", "state"), [("run", "queued"), ("pause", "paused"), ("cancel", "cancelled")]
)
def test_an_attempt_that_ends_early_leaves_its_job_where_the_owner_wants_it(wanted: str, state: str) -> None:
    job = Job(id="job_1", state="running", wanted=wanted, event_seq=0, revision=0, transitions=[])
    jobs.leave(job, "drained", AT)
    assert (job.state, job.finished_at is not None) == (state, state == "cancelled")


def test_a_lost_job_that_its_owner_paused_is_paused() -> None:
    job = Job(id="job_1", state="running", wanted="pause", losses=0, event_seq=0, revision=0, transitions=[])
    leases.lose_job(job, "worker lost", AT, **LIMITS)
    assert (job.state, job.losses, job.error) == ("paused", 1, None)


def test_claimable_jobs_are_counted_by_pool(database: Database) -> None:
    waiting = {"not_before": AT + timedelta(seconds=1)}
    queue(database, {}, {}, {"pool": "gpu"}, {"pool": "gpu", "wanted": "cancel"}, waiting)
    with database.read() as session:
        counts = session.execute(leases.claimable_jobs(AT)).all()
    assert sorted(counts) == [("cpu", 2), ("gpu", 1)]


def test_of_many_workers_each_upload_goes_to_one_the_oldest_first(database: Database) -> None:
    with database.write() as session:
        for version in range(1, 13):
            created = AT + timedelta(minutes=version)
            add_dataset(session, version=version, state="queued", created_at=created)
        session.commit()
    order: list[int] = []

    def claim_all() -> list[int]:
        found: list[int] = []
        while True:
            with database.write() as session:
                row: Dataset | None = session.scalar(leases.claim_dataset())
                session.commit()
            if row is None:
                return found
            found.append(row.version)
            order.append(row.version)

    claimed = Counter(version for found in at_once(claim_all) for version in found)
    assert claimed == Counter(range(1, 13))
    assert order[0] <= THREADS


# Leases


def test_a_beat_moves_the_lease_and_reads_what_is_wanted(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        steering.cancel(session.scalars(jobs.lock_job(job_id)).one(), AT)
        session.flush()
        beaten = session.execute(leases.beat_job(job_id, 1, progress={"step": 3})).one()
        assert beaten == ("cancel", None)
        session.commit()
    row = read(database, job_id)
    assert (row.beat, row.progress) == (1, {"step": 3})


def test_an_attempt_that_lost_its_job_writes_nothing_more(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        job = session.scalars(leases.lock_lost_job(job_id, 1, 0)).one()
        session.add(leases.lose_job(job, "worker lost", AT, **LIMITS))
        session.commit()
    second = claim(database)
    assert second is not None
    assert second.fence == 2
    with database.write() as session:
        assert session.scalar(leases.beat_job(job_id, 1, metrics={"train_loss": 9.0})) is None
        assert session.scalars(jobs.lock_job(job_id, fence=1)).one_or_none() is None
        assert session.scalar(leases.beat_job(job_id, 2)) == "run"
        session.commit()
    assert read(database, job_id).metrics == {}


def test_a_lease_that_moved_since_it_was_seen_is_not_lost(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        ((_, fence, beat),) = session.execute(leases.running_leases()).all()
        session.execute(leases.beat_job(job_id, fence))
        assert session.scalars(leases.lock_lost_job(job_id, fence, beat)).one_or_none() is None
        assert session.scalars(leases.lock_lost_job(job_id, fence, beat + 1)).one().id == job_id


def test_losses_wait_ten_seconds_doubling_and_the_last_one_fails() -> None:
    job = Job(id="job_1", state="running", wanted="run", losses=0, event_seq=0, revision=0, transitions=[])
    limits: dict[str, Any] = {"max_losses": 5, "backoff_s": 10.0}
    waits = []
    for _ in range(4):
        leases.lose_job(job, "worker lost", AT, **limits)
        assert job.state == JobState.QUEUED
        waits.append((job.not_before - AT).total_seconds() if job.not_before else 0.0)
        job.state = JobState.RUNNING
    event = leases.lose_job(job, "killed by signal 9", AT, **limits)
    assert waits == [0.0, 10.0, 20.0, 40.0]
    assert (job.state, event.data["state"]) == (JobState.FAILED, JobState.FAILED)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "killed by signal 9" in job.error["message"]
    assert job.finished_at == AT


def test_a_lost_job_that_its_owner_cancelled_is_cancelled() -> None:
    job = Job(id="job_1", state="running", wanted="cancel", losses=0, event_seq=0, revision=0, transitions=[])
    leases.lose_job(job, "worker lost", AT, **LIMITS)
    assert job.state == JobState.CANCELLED
    assert job.error is None


# Moves

ARROWS = {
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "cancelled"),
    ("queued", "failed"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "paused"),
    ("running", "queued"),
    ("paused", "queued"),
    ("paused", "cancelled"),
}
STATES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"]


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_a_job_moves_along_the_arrows_of_the_api_and_no_others(before: str, after: str) -> None:
    job = Job(id="job_1", state=before, event_seq=4, revision=9, transitions=[])
    if (before, after) not in ARROWS:
        with pytest.raises(Conflict):
            jobs.move(job, JobState(after), "because", AT)
        assert (job.state, job.event_seq, job.transitions) == (before, 4, [])
        return
    event = jobs.move(job, JobState(after), "because", AT)
    assert (job.state, job.event_seq, job.revision) == (after, 5, 10)
    assert job.transitions == [{"state": after, "at": AT.isoformat(), "reason": "because"}]
    assert (event.seq, event.type, event.data) == (5, "state", {"state": after, "reason": "because"})
    assert (job.finished_at is not None) == (after in {"succeeded", "failed", "cancelled"})


def test_a_transition_survives_the_database(database: Database) -> None:
    (job_id,) = queue(database, {})
    claim(database)
    with database.write() as session:
        job = session.scalars(jobs.lock_job(job_id)).one()
        session.add(jobs.move(job, JobState.QUEUED, "drained", AT + timedelta(hours=1)))
        session.commit()
    row = read(database, job_id)
    assert [step["state"] for step in row.transitions] == ["running", "queued"]
    assert row.queued_at == AT + timedelta(hours=1)


def test_cancel_race_complete_of_both_at_once_exactly_one_happens(database: Database) -> None:
    ends = [JobState.CANCELLED, JobState.SUCCEEDED] * (THREADS // 2)
    for _ in range(5):
        (job_id,) = queue_more(database)
        claim(database)
        todo = list(ends)

        def end(todo: list[JobState] = todo, job_id: str = job_id) -> str:
            state = todo.pop()
            try:
                with database.write() as session:
                    job = session.scalars(jobs.lock_job(job_id)).one()
                    session.add(jobs.move(job, state, "raced", AT))
                    session.commit()
            except Conflict:
                return "refused"
            return state

        answers = Counter(at_once(end))
        assert answers.pop("refused") == THREADS - 1
        assert list(answers) == [read(database, job_id).state]


def queue_more(database: Database) -> list[str]:
    """One more job, of the dataset there is or a new one."""
    with database.write() as session:
        dataset = session.scalars(datasets.newest_version("ada", "digits")).one_or_none()
        found = add_job(session, dataset.id if dataset is not None else add_dataset(session).id).id
        session.commit()
    return [found]


# Events


def test_events_are_numbered_without_a_gap_and_never_appear_behind_a_reader(database: Database) -> None:
    (job_id,) = queue(database, {})
    each = 15
    seen: list[int] = []

    def write() -> None:
        for number in range(each):
            with database.write() as session:
                job = session.scalars(jobs.lock_job(job_id)).one()
                session.add(jobs.add_event(job, "warning", {"message": str(number)}, AT))
                session.commit()

    def follow() -> None:
        while len(seen) < THREADS * each:
            with database.read() as session:
                last = seen[-1] if seen else 0
                seen.extend(event.seq for event in session.scalars(jobs.events_after(job_id, last, 7)))

    follower = threading.Thread(target=follow)
    follower.start()
    at_once(write)
    follower.join(timeout=30)
    assert seen == list(range(1, THREADS * each + 1))
    with database.read() as session:
        assert len(session.scalars(select(Event)).all()) == read(database, job_id).event_seq == len(seen)
