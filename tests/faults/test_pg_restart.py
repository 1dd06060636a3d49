"""PostgreSQL is killed, loses its last words, and is away while workers start."""

import threading
import time
from collections import Counter

import pytest

from tests import exactness, invariants
from tests import house as homes
from tests.proxy import Proxy
from tests.servers import Postgres
from tests.site import Site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def unbroken(pair: Site) -> exactness.Outcome:
    job_id = pair.submit()
    pair.wait(job_id)
    return exactness.outcome(pair.house, job_id)


def test_pg_restart_under_load_is_503_for_a_moment_and_loses_and_doubles_no_job(
    pair: Site, postgres: Postgres, unbroken: exactness.Outcome
) -> None:
    job_ids: dict[str, str] = {}
    answers: Counter[int] = Counter()
    stop = threading.Event()

    def post(number: int) -> None:
        client = pair.client(number)
        for count in range(1000):
            if stop.is_set():
                return
            key = f"restart-{number}-{count}"
            while key not in job_ids:
                reply = client.post("/v1/jobs", json=pair.spec(), headers={"Idempotency-Key": key})
                answers[reply.status_code] += 1
                if reply.status_code == 202:
                    job_ids[key] = reply.json()["id"]
                else:
                    assert reply.status_code == 503, reply.text
                    assert int(reply.headers["Retry-After"]) >= 1
                    time.sleep(0.2)
            stop.wait(0.4)

    with invariants.fences_only_rise(pair.house):
        posting = [threading.Thread(target=post, args=(number,)) for number in range(2)]
        for thread in posting:
            thread.start()
        until(lambda: len(job_ids) > 4, "jobs are posted")
        postgres.restart(after_s=2)
        back = time.monotonic()
        until(lambda: all(pair.is_ready(number) for number in range(2)), "both services heal", 30)
        healed_s = time.monotonic() - back
        time.sleep(2)
        stop.set()
        for thread in posting:
            thread.join(60)
            assert not thread.is_alive()
        pair.wait(*job_ids.values(), within_s=180)
    print(f"{len(job_ids)} jobs, answers {dict(answers)}, both services healed in {healed_s:.1f} s")
    assert answers[503] > 0
    assert len(set(job_ids.values())) == len(job_ids)
    assert {job.id for job in homes.read_jobs(pair.house)} >= set(job_ids.values())
    for job_id in job_ids.values():
        assert pair.job(job_id).state == "succeeded"
    last = list(job_ids.values())[-1]
    assert exactness.outcome(pair.house, last) == unbroken
    invariants.require(pair.house, job_ids.values())


@pytest.mark.parametrize("word", [b"INSERT INTO checkpoints", b"INSERT INTO versions"])
def test_pg_restart_that_swallows_the_answer_to_a_commit_loses_nothing_that_was_committed(
    pair: Site, proxy: Proxy, unbroken: exactness.Outcome, word: bytes
) -> None:
    cuts = proxy.cuts
    proxy.cut_commit_of(word)
    job_id = pair.submit()
    pair.wait(job_id)
    assert proxy.cuts == cuts + 1
    job = pair.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert exactness.outcome(pair.house, job_id) == unbroken
    invariants.require(pair.house, [job_id])


def test_pg_restart_does_not_keep_a_worker_that_starts_meanwhile_from_working(
    pair: Site, proxy: Proxy
) -> None:
    for worker in pair.workers:
        worker.end()
    proxy.refuse()
    try:
        for worker in pair.workers:
            worker.start()
        until(lambda: all("database_away" in worker.said() for worker in pair.workers), "they say so", 60)
    finally:
        proxy.heal()
    for worker in pair.workers:
        pair.wait_for_worker(worker)
    job_id = pair.submit()
    pair.wait(job_id)
    invariants.require(pair.house, [job_id])
