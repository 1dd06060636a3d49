"""Whole processes killed, stopped and drained: one terminal state, the weights of the unbroken run."""

import json
import signal
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests import exactness, invariants
from tests import house as homes
from tests.site import Site, is_running, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Ends in seconds; with a checkpoint every five steps there is one behind the twentieth.
TRAINER = {"epochs": 3, "checkpoint": {"every_steps": 5, "keep": 2}}
HELD_AT = "hold 20"


@pytest.fixture(scope="module")
def unbroken(site: Site) -> exactness.Outcome:
    job_id = site.submit(**TRAINER)
    site.wait(job_id)
    return exactness.outcome(site.house, job_id)


@pytest.fixture(autouse=True)
def watched(site: Site) -> Iterator[None]:
    """And whole again after each test."""
    with invariants.fences_only_rise(site.house):
        yield
    site.revive()
    for process in site.workers:
        site.wait_for_worker(process)
    until(site.is_ready, "the service is ready", 60)


def test_worker_kill9_takes_its_child_along_and_the_job_goes_on_from_its_checkpoint(
    site: Site, unbroken: exactness.Outcome
) -> None:
    site.plan("child.step", HELD_AT)
    job_id = site.submit(**TRAINER)
    site.wait_for("child.step")
    worker = site.workers[0]
    family = worker.family
    worker.kill()
    until(lambda: not any(map(is_running, family)), "the training died with its worker", 5)
    site.wait(job_id, revives=True)
    assert site.job(job_id).attempt == 2
    assert exactness.outcome(site.house, job_id) == unbroken
    (rewound,) = (one for one in homes.read_events(site.house, job_id) if one.type == "rewound")
    assert rewound.data["step"] >= 10
    invariants.require(site.house, [job_id])


def test_child_kill9_is_seen_at_once_and_costs_one_attempt(site: Site, unbroken: exactness.Outcome) -> None:
    site.plan("child.step", "kill 20")
    job_id = site.submit(**TRAINER)
    site.wait_for("child.step")
    died = time.monotonic()
    until(lambda: site.job(job_id).attempt == 2, "it was tried again", 10)
    print(f"tried again {time.monotonic() - died:.2f} s after its child was killed")
    site.wait(job_id)
    assert any("signal 9" in one["reason"] for one in site.job(job_id).transitions)
    assert exactness.outcome(site.house, job_id) == unbroken
    invariants.require(site.house, [job_id])


def test_zombie_writer_that_wakes_behind_its_lease_writes_nothing_and_is_a_worker_again(
    site: Site, unbroken: exactness.Outcome
) -> None:
    site.plan("worker.stored", "stop 3")  # the worst place: its files are in storage, its row is not
    job_id = site.submit(**TRAINER)
    pid = site.wait_for("worker.stored")
    zombie = site.workers[0]
    assert pid == zombie.pid
    with zombie.paused():
        site.wait_for_state(job_id, "queued")
        second = site.worker()
        site.wait(job_id)
        until(lambda: zombie.pid not in site.known_workers(), "the silent worker is forgotten")
        before = site.job(job_id)
    try:
        until(lambda: zombie.pid in site.known_workers(), "it is a worker again")
        until(lambda: len(zombie.family) < 4, "its child is gone")
        after = site.job(job_id)
        assert (after.revision, after.event_seq, after.fence) == (before.revision, before.event_seq, 2)
        assert "attempt_fenced" in zombie.said()
        assert exactness.outcome(site.house, job_id) == unbroken
        invariants.require(site.house, [job_id])
        second.end()
        again = site.submit(epochs=1)
        site.wait(again)
    finally:
        if second.is_running:
            second.end()
        site.workers.remove(second)


def test_sigterm_drain_saves_where_it_stood_and_ends_well_in_its_grace(
    site: Site, unbroken: exactness.Outcome
) -> None:
    site.plan("child.step", HELD_AT)
    job_id = site.submit(**TRAINER)
    site.wait_for("child.step")
    worker = site.workers[0]
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    time.sleep(1.0)
    site.let_go("child.step")
    status = worker.wait(30)
    print(f"ended with {status}, {time.monotonic() - asked:.1f} s after SIGTERM")
    assert status == 0
    job = site.job(job_id)
    assert (job.state, job.losses, job.transitions[-1]["reason"]) == ("queued", 0, "drained")
    site.wait(job_id, revives=True)
    assert exactness.outcome(site.house, job_id) == unbroken
    invariants.require(site.house, [job_id])


def test_cancel_running_is_heard_within_5_s_and_keeps_the_last_checkpoint(site: Site) -> None:
    job_id = site.submit(epochs=2000, checkpoint={"every_steps": 5, "keep": 2})
    until(lambda: bool(homes.read_checkpoints(site.house, job_id)), "a checkpoint is there")
    (child,) = site.workers[0].trainers
    assert site.http.post(f"/v1/jobs/{job_id}/cancel").status_code in (200, 202)
    asked = time.monotonic()
    site.wait(job_id, within_s=5)
    until(lambda: not is_running(child), "its process, and all its memory, is gone", 5)
    print(f"cancelled {time.monotonic() - asked:.2f} s after it was asked")
    assert site.job(job_id).state == "cancelled"
    assert homes.read_checkpoints(site.house, job_id)
    invariants.require(site.house, [job_id])


@pytest.mark.parametrize("delay_ms", [0, 10, 30, 100])
def test_cancel_race_complete_is_one_end_the_same_to_who_asks_and_to_who_watches(
    site: Site, delay_ms: int
) -> None:
    site.plan("worker.registering", "hold")
    job_id = site.submit(epochs=1)
    site.wait_for("worker.registering")
    seen: list[str] = []
    watching = threading.Thread(target=watch, args=(site, job_id, seen))
    watching.start()
    release = threading.Timer(delay_ms / 1000, site.let_go, ["worker.registering"])
    release.start()
    reply = site.http.post(f"/v1/jobs/{job_id}/cancel")
    assert reply.status_code in (200, 202, 409)
    site.wait(job_id)
    watching.join(30)
    state = site.job(job_id).state
    print(f"let go {delay_ms} ms after the cancel: {state}; the cancel was answered {reply.status_code}")
    assert site.http.get(f"/v1/jobs/{job_id}").json()["state"] == state
    assert [one for one in seen if one in ("succeeded", "cancelled", "failed")] == [state]
    invariants.require(site.house, [job_id])


def watch(site: Site, job_id: str, seen: list[str]) -> None:
    """The states that an event stream tells of."""
    headers = {"Accept": "text/event-stream"}
    with site.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=60) as reply:
        kind = ""
        for line in reply.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind == "state":
                seen.append(json.loads(line.removeprefix("data: "))["data"]["state"])
            if kind == "end":
                return


#: Where a process is killed, and who is there: every point that a job passes. `kill n` is at the n-th.
KILLS = {
    "child.step": "kill 18",
    "child.saving": "kill 2",
    "child.saved": "kill 2",
    "child.verifying": "kill",
    "worker.claimed": "kill",
    "worker.stored": "kill 2",
    "worker.committed": "kill 3",
    "worker.registering": "kill",
    "storage.written": "kill 3",
    "storage.renamed": "kill 3",
    "service.accepted": "kill",
    "sweep.looked": "kill",
    "sweep.waking": "kill",
}


@pytest.mark.parametrize("point", KILLS)
def test_a_process_killed_at_any_point_loses_doubles_and_spoils_nothing(
    site: Site, unbroken: exactness.Outcome, point: str
) -> None:
    site.plan(point, KILLS[point])
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
    job_id = site.submit(**TRAINER)
    site.wait(job_id, within_s=120, revives=True)
    assert not site.is_planned("sweep.losing")
    assert sum(one["reason"] == "worker lost" for one in site.job(job_id).transitions) == 1
    assert exactness.outcome(site.house, job_id) == unbroken
    invariants.require(site.house, [job_id])


def submit_until_accepted(site: Site, key: str) -> str:
    """As a client does that lost the answer: the same request once more."""
    deadline = time.monotonic() + 60
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
