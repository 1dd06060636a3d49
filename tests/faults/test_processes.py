"""Whole processes killed, stopped and drained: one terminal state, the weights of the unbroken run."""

import json
import signal
import threading
import time

import pytest

from tests import exactness, invariants
from tests import house as homes
from tests.site import TRAINER, Site, is_running, until

HELD_AT = "hold 20"


pytestmark = [pytest.mark.faults, pytest.mark.timeout(300), pytest.mark.usefixtures("watched")]


def test_worker_kill9_takes_its_child_along_and_the_job_goes_on_from_its_checkpoint(
    site: Site, unbroken: exactness.Outcome
) -> None:
    site.plan("child.step", HELD_AT)
    job_id = site.submit(**TRAINER)
    site.wait_for("child.step")
    worker = site.workers[0]
    (child,) = worker.trainers
    worker.kill()
    until(lambda: not is_running(child), "the training died with its worker", 5)
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
    site.plan("worker.stored", "hold 3")  # the worst place: its files are in storage, its row is not
    job_id = site.submit(**TRAINER)
    pid = site.wait_for("worker.stored")
    zombie = site.workers[0]
    assert pid == zombie.pid
    with site.paused_without_a_lock(zombie):
        site.let_go("worker.stored")
        site.wait_for_state(job_id, "queued")
        second = site.worker()
        site.wait(job_id)
        until(lambda: zombie.pid not in site.known_workers(), "the silent worker is forgotten")
        before = site.job(job_id)
    try:
        until(lambda: zombie.pid in site.known_workers(), "it is a worker again")
        until(lambda: "attempt_fenced" in zombie.said(), "it noticed")
        assert not zombie.trainers
        after = site.job(job_id)
        assert (after.revision, after.event_seq, after.fence) == (before.revision, before.event_seq, 2)
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


@pytest.mark.parametrize(
    ("point", "delay_ms"),
    [
        ("worker.registering", 0),
        ("worker.registering", 50),
        ("child.verifying", 0),
        ("child.verifying", 1500),
    ],
)
def test_cancel_race_complete_is_one_end_the_same_to_who_asks_and_to_who_watches(
    site: Site, point: str, delay_ms: int
) -> None:
    site.plan(point, "hold")
    job_id = site.submit(epochs=1)
    site.wait_for(point)
    seen: list[str] = []
    watching = threading.Thread(target=watch, args=(site, job_id, seen))
    watching.start()
    release = threading.Timer(delay_ms / 1000, site.let_go, [point])
    release.start()
    reply = site.http.post(f"/v1/jobs/{job_id}/cancel")
    assert reply.status_code in (200, 202, 409)
    site.wait(job_id)
    watching.join(30)
    state = site.job(job_id).state
    print(f"let go from {point} {delay_ms} ms after the cancel ({reply.status_code}): {state}")
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
