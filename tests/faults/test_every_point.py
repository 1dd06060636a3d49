"""Every process killed at every named point that a job passes: one terminal state, the weights of the
unbroken run, and nothing left behind."""

import time

import httpx2
import pytest

from tests import exactness, invariants
from tests import house as homes
from tests.site import TRAINER, Site

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300), pytest.mark.usefixtures("watched")]

#: Where a process is killed that knows the database. `kill n` is at the n-th passage.
KILLS = {
    "worker.claimed": "kill",
    "worker.stored": "kill 2",
    "worker.committed": "kill 3",
    "worker.registering": "kill",
    "service.accepted": "kill",
    "sweep.looked": "kill",
    "sweep.waking": "kill",
}
#: And one that does not, or not there: on one database is enough.
KILLS_ELSEWHERE = {
    "child.step": "kill 18",
    "child.saving": "kill 2",
    "child.saved": "kill 2",
    "child.verifying": "kill",
    "storage.written": "kill 3",
    "storage.renamed": "kill 3",
}


@pytest.mark.parametrize("point", KILLS)
def test_a_process_killed_at_any_point_loses_doubles_and_spoils_nothing(
    site: Site, unbroken: exactness.Outcome, point: str
) -> None:
    kill_at(site, point, KILLS[point], unbroken)


@pytest.mark.parametrize("site", ["sqlite, a socket"], indirect=True)
@pytest.mark.parametrize("point", KILLS_ELSEWHERE)
def test_a_process_killed_where_it_knows_no_database_loses_doubles_and_spoils_nothing(
    site: Site, unbroken: exactness.Outcome, point: str
) -> None:
    kill_at(site, point, KILLS_ELSEWHERE[point], unbroken)


def kill_at(site: Site, point: str, act: str, unbroken: exactness.Outcome) -> None:
    site.plan(point, act)
    job_id = submit_until_accepted(site, f"{point}-{time.monotonic()}")
    site.wait(job_id, within_s=120, revives=True)
    assert not site.is_planned(point)
    print(f"killed at {point}: ended in attempt {site.job(job_id).attempt}")
    assert exactness.outcome(site.house, job_id) == unbroken
    invariants.require(site.house, [job_id])


def test_a_service_killed_before_it_commits_has_accepted_nothing(site: Site) -> None:
    before = {job.id for job in homes.read_jobs(site.house)}
    site.plan("service.accepting", "kill")
    with pytest.raises(httpx2.TransportError):
        site.submit()
    assert {job.id for job in homes.read_jobs(site.house)} == before


def test_a_sweep_killed_while_it_takes_a_lease_takes_it_once(site: Site, unbroken: exactness.Outcome) -> None:
    site.plan("worker.stored", "kill 2")
    site.plan("sweep.losing", "kill")
    job_id = submit_until_accepted(site, f"losing-{time.monotonic()}")
    site.wait(job_id, within_s=120, revives=True)
    assert not site.is_planned("sweep.losing")
    assert sum(one["reason"] == "worker lost" for one in site.job(job_id).transitions) == 1
    assert exactness.outcome(site.house, job_id) == unbroken
    invariants.require(site.house, [job_id])


def submit_until_accepted(site: Site, key: str) -> str:
    """As a client does that lost the answer: the same request once more."""
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline
        try:
            headers = {"Idempotency-Key": key}
            reply = site.http.post("/v1/jobs", json=site.spec(**TRAINER), headers=headers)
        except httpx2.TransportError:
            site.revive()
            time.sleep(0.2)
            continue
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])
