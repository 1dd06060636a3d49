"""The broker loses, repeats, dies and comes back as it was: every job runs once."""

import time
from statistics import median

import pytest

from core import queue
from core.settings import Settings
from tests import invariants
from tests.site import Site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

#: As the broker names it.
QUEUE = "modelyard:cpu"
#: So often that a kill meets it behind a checkpoint.
EPOCHS = 4


def hints(site: Site) -> int:
    return int(site.broker.client().llen(QUEUE))


def test_dup_message_five_wake_ups_for_one_job_are_one_run(site: Site) -> None:
    with site.workers[0].paused():
        job_id = site.submit()
        celery = queue.make_celery(Settings(broker_url=site.broker.url))
        for _ in range(5):
            queue.wake(celery, "cpu")
        assert hints(site) >= 3  # the server has given some to who waits already
    site.wait(job_id)
    until(lambda: hints(site) == 0, "all wake-ups were taken")
    assert site.job(job_id).attempt == 1
    invariants.require(site.house, [job_id])


def test_lost_message_flushed_after_the_commit_is_sent_again_by_the_sweep(site: Site) -> None:
    with site.workers[0].paused():
        job_id = site.submit()
        until(lambda: hints(site) > 0, "the wake-up was sent")
        site.broker.client().flushall()
    site.wait(job_id, within_s=45)
    invariants.require(site.house, [job_id])


def test_redis_kill9_idle_the_next_job_runs_within_60_s_on_the_same_worker(site: Site) -> None:
    worker = site.workers[0].pid
    site.broker.restart(after_s=3)
    started = time.monotonic()
    job_id = site.submit()
    site.wait(job_id, within_s=60)
    print(f"ended {time.monotonic() - started:.1f} s after it was posted to the new broker")
    assert site.workers[0].pid == worker
    assert site.workers[0].is_running
    invariants.require(site.house, [job_id])


def test_redis_kill9_mid_job_is_not_noticed_by_the_job(site: Site) -> None:
    site.plan("child.step", "hold 20")
    job_id = site.submit(epochs=EPOCHS)
    site.wait_for("child.step")
    site.broker.restart(after_s=3)
    site.let_go("child.step")
    site.wait(job_id)
    assert (site.job(job_id).attempt, site.job(job_id).losses) == (1, 0)
    invariants.require(site.house, [job_id])


def test_redis_down_submit_is_accepted_in_half_a_second_and_runs_when_it_is_back(site: Site) -> None:
    site.http.post("/v1/plans", json=site.spec())  # the helper is warm
    site.broker.kill()
    took_s, job_ids = [], []
    for _ in range(5):
        started = time.monotonic()
        job_ids.append(site.submit(epochs=1))
        took_s.append(time.monotonic() - started)
    print(f"accepted without a broker in {median(took_s):.3f} s, the slowest in {max(took_s):.3f} s")
    assert median(took_s) < 0.5
    assert {site.job(job_id).state for job_id in job_ids} == {"queued"}
    until(lambda: site.http.get("/health/ready").json()["broker"] == "unreachable", "it says so", 15)
    site.broker.start()
    site.wait(*job_ids)
    invariants.require(site.house, job_ids)


def test_redis_snapshot_rollback_replays_a_wake_up_that_finds_nothing(site: Site) -> None:
    with site.workers[0].paused():
        job_id = site.submit()
        until(lambda: hints(site) > 0, "the wake-up was sent")
        site.broker.snapshot()
    site.wait(job_id)
    before = site.job(job_id)
    site.broker.restart()
    until(lambda: hints(site) == 0, "the replayed wake-up was taken", 60)
    after = site.job(job_id)
    assert (after.attempt, after.revision, after.state) == (1, before.revision, "succeeded")
    (site.broker.folder / "dump.rdb").unlink()
    invariants.require(site.house, [job_id])


def test_hoarding_a_busy_worker_leaves_what_waits_to_an_idle_one(site: Site) -> None:
    second = site.worker()
    try:
        site.plan("child.step", "hold 2")
        held = site.submit()
        site.wait_for("child.step")
        posted = time.monotonic()
        others = [site.submit(), site.submit()]
        until(lambda: "queued" not in {site.job(others[0]).state}, "the next one started", 5)
        print(f"started {time.monotonic() - posted:.1f} s after it was posted beside a busy worker")
        site.wait(*others)
        assert site.job(held).state == "running"
        site.let_go("child.step")
        site.wait(held)
        invariants.require(site.house, [held, *others])
    finally:
        second.end()
        site.workers.remove(second)
