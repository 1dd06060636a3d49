"""Jobs in hand over a real socket: paused, resumed, cancelled, preempted, and how many slots they hold."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx2
import pytest

from core.db.models import Worker, utc_now
from core.db.statements import jobs, leases
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService


@pytest.fixture
def job_id(me: Owner) -> str:
    me.dataset()
    return str(me.post_job()["id"])


def ask(me: Owner, job_id: str, what: str) -> tuple[int, str, str]:
    """Status of the answer, and the job's state and wish."""
    reply = me.client.post(f"/v1/jobs/{job_id}/{what}")
    assert reply.status_code in (200, 202), reply.text
    return reply.status_code, reply.json()["state"], reply.json()["wanted"]


def refused(me: Owner, job_id: str, what: str) -> httpx2.Response:
    reply = me.client.post(f"/v1/jobs/{job_id}/{what}")
    assert (reply.status_code, reply.json()["code"]) == (409, "no_such_transition"), reply.text
    return reply


def leave(me: Owner, job_id: str, reason: str) -> None:
    """As a supervisor does once its child has stopped."""
    with me.database.write() as session:
        job = session.scalars(jobs.lock_job(job_id)).one()
        session.add(jobs.leave(job, reason, utc_now()))
        session.commit()


def reasons(me: Owner, job_id: str) -> list[tuple[str, str]]:
    transitions = me.client.get(f"/v1/jobs/{job_id}").json()["transitions"]
    return [(one["state"], one["reason"]) for one in transitions]


def test_the_schema_lists_the_routes_with_examples(service: RunningService) -> None:
    with service.client() as client:
        schema = client.get("/schema/openapi.json").json()
    for what in ("pause", "resume", "cancel", "fork"):
        operation = schema["paths"][f"/v1/jobs/{{job_id}}/{what}"]["post"]
        assert operation["x-scope"] == "train"
        assert operation["description"]
    fork = schema["components"]["schemas"]["ForkRequest"]
    content = schema["paths"]["/v1/jobs/{job_id}/fork"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ForkRequest"}
    assert set(fork["properties"]) == {"patch", "from"}
    assert fork["properties"]["patch"]["examples"]
    assert "best" in str(fork["properties"]["from"])


# Pause and resume


def test_a_queued_job_is_paused_at_once_and_waits_again_when_resumed(me: Owner, job_id: str) -> None:
    assert ask(me, job_id, "pause") == (200, "paused", "pause")
    job = me.client.get(f"/v1/jobs/{job_id}").json()
    assert (job["terminal"], job["finished_at"]) == (False, None)
    assert ask(me, job_id, "resume") == (200, "queued", "run")
    assert reasons(me, job_id) == [
        ("queued", "submitted"),
        ("paused", "paused by its owner"),
        ("queued", "resumed by its owner"),
    ]
    events = me.client.get(f"/v1/jobs/{job_id}/events").json()["items"]
    assert [one["data"]["state"] for one in events] == ["queued", "paused", "queued"]


def test_no_worker_takes_a_paused_job(service: RunningService, me: Owner, job_id: str) -> None:
    ask(me, job_id, "pause")
    with service.database.read() as session:
        waiting = dict(session.execute(leases.claimable_jobs(utc_now())).all())
    before = waiting.get("cpu", 0)
    ask(me, job_id, "resume")
    with service.database.read() as session:
        assert dict(session.execute(leases.claimable_jobs(utc_now())).all())["cpu"] == before + 1


def test_a_running_job_is_asked_to_pause_and_its_supervisor_moves_it(me: Owner, job_id: str) -> None:
    fence = me.claim(job_id)
    for _ in range(2):  # asking twice is no error
        assert ask(me, job_id, "pause") == (202, "running", "pause")
    with me.database.write() as session:
        assert session.execute(leases.beat_job(job_id, fence)).one() == ("pause", None)
        session.commit()
    leave(me, job_id, "paused by its owner")
    assert me.client.get(f"/v1/jobs/{job_id}").json()["state"] == "paused"
    assert ask(me, job_id, "resume") == (200, "queued", "run")


def test_a_pause_is_taken_back_while_the_job_still_runs(me: Owner, job_id: str) -> None:
    me.claim(job_id)
    ask(me, job_id, "pause")
    assert ask(me, job_id, "resume") == (200, "running", "run")
    leave(me, job_id, "resumed by its owner")  # its child had been told to stop already
    assert me.client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_a_paused_job_is_cancelled_at_once(me: Owner, job_id: str) -> None:
    ask(me, job_id, "pause")
    assert ask(me, job_id, "cancel") == (200, "cancelled", "cancel")


def test_a_running_job_that_is_asked_to_pause_may_still_be_cancelled(me: Owner, job_id: str) -> None:
    me.claim(job_id)
    ask(me, job_id, "pause")
    assert ask(me, job_id, "cancel") == (202, "running", "cancel")
    assert "being cancelled" in refused(me, job_id, "pause").json()["detail"]
    refused(me, job_id, "resume")


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_nobody_paused_is_not_resumed(me: Owner, job_id: str, state: str) -> None:
    if state == "running":
        me.claim(job_id)
    assert f"is {state} and not paused" in refused(me, job_id, "resume").json()["detail"]


def test_a_paused_job_is_not_paused_again(me: Owner, job_id: str) -> None:
    ask(me, job_id, "pause")
    refused(me, job_id, "pause")


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_what_has_ended_is_neither_paused_nor_resumed(me: Owner, job_id: str, end: JobState) -> None:
    me.claim(job_id)
    ask(me, job_id, "pause")
    me.move(job_id, end)  # it ended before it heard of the pause
    refused(me, job_id, "pause")
    refused(me, job_id, "resume")
    assert me.client.get(f"/v1/jobs/{job_id}").json()["state"] == end


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_another_owners_job_is_not_there(service: RunningService, job_id: str, what: str) -> None:
    with service.owner() as other:
        assert other.client.post(f"/v1/jobs/{job_id}/{what}").status_code == 404


def test_a_waiting_reader_hears_of_a_pause(me: Owner, job_id: str) -> None:
    etag = me.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    ask(me, job_id, "pause")
    reply = me.client.get(f"/v1/jobs/{job_id}?wait=20", headers={"If-None-Match": etag})
    assert reply.json()["state"] == "paused"


# Slots


@contextmanager
def worker(service: RunningService, *, slots: int, pool: str = "cpu") -> Iterator[str]:
    """A row as a worker writes it."""
    row = Worker(
        id=f"wrk_{uuid4().hex}",
        host="h",
        pid=1,
        pool=pool,
        devices=[],
        slots=slots,
        torch="2",
        started_at=utc_now(),
    )
    with service.database.write() as session:
        session.add(row)
        session.commit()
    try:
        yield row.id
    finally:
        with service.database.write() as session:
            session.delete(session.get_one(Worker, row.id))
            session.commit()


def test_more_devices_than_the_largest_worker_has_slots_are_422(service: RunningService, me: Owner) -> None:
    me.dataset()
    with worker(service, slots=1), worker(service, slots=2):
        assert me.row(me.post_job(trainer={"devices": 2})["id"]).devices == 2
        reply = me.client.post("/v1/jobs", json=me.job(trainer={"devices": 3}))
    assert reply.status_code == 422
    (error,) = reply.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/trainer/devices", "too_large")
    assert "has 2 slots" in error["message"]


def test_devices_that_no_known_worker_could_give_are_taken_with_a_warning(me: Owner) -> None:
    me.dataset()
    job = me.post_job(trainer={"devices": 3})
    assert any("no worker of the pool cpu" in warning for warning in job["warnings"])


# Preemption: by the dispatcher of the running service, at once


def claim_on(me: Owner, job_id: str, worker_id: str) -> int:
    fence = me.claim(job_id)
    with me.database.write() as session:
        session.scalars(jobs.lock_job(job_id)).one().worker_id = worker_id
        session.commit()
    return fence


def preemptor(me: Owner, job_id: str) -> str:
    """Waits for the mark; far less than the ten seconds of a sweep."""
    until = time.monotonic() + 5
    while (by := me.row(job_id).preempted_by) is None:
        assert time.monotonic() < until, f"{job_id} was not asked to make room"
        time.sleep(0.02)
    return by


def test_a_job_of_a_higher_priority_has_the_youngest_of_the_lowest_stopped(
    service: RunningService, me: Owner
) -> None:
    me.dataset()
    with worker(service, slots=2) as worker_id:
        high, low = me.post_job(priority=5)["id"], me.post_job()["id"]
        claim_on(me, high, worker_id)
        fence = claim_on(me, low, worker_id)
        equal = me.post_job()["id"]
        urgent = me.post_job(priority=9)["id"]
        assert preemptor(me, low) == urgent
        assert me.row(high).preempted_by is None
        with me.database.write() as session:
            assert session.execute(leases.beat_job(low, fence)).one() == ("run", urgent)
            session.commit()
        leave(me, low, f"preempted by {urgent}")
        assert reasons(me, low)[-1] == ("queued", f"preempted by {urgent}")
        assert me.row(equal).state == "queued"
        for one in (high, equal, urgent, low):
            me.client.post(f"/v1/jobs/{one}/cancel")


def test_a_resumed_job_makes_room_for_itself_as_a_new_one_does(service: RunningService, me: Owner) -> None:
    me.dataset()
    with worker(service, slots=1) as worker_id:
        urgent = me.post_job(priority=9)["id"]
        ask(me, urgent, "pause")
        low = me.post_job()["id"]
        claim_on(me, low, worker_id)
        ask(me, urgent, "resume")
        assert preemptor(me, low) == urgent
        for one in (urgent, low):
            me.client.post(f"/v1/jobs/{one}/cancel")
