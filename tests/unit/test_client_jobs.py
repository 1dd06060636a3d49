"""Submitting and waiting for jobs, against a real server on loopback."""

import time

import msgspec
import pytest

from modelyard import Client, errors
from modelyard.specs import ForkedFrom, JobSpec, Plan
from tests.unit.scripted_service import (
    AT,
    Answer,
    ScriptedService,
    a_job,
    failed_job,
    problem,
    succeeded_job,
)


def test_submit_sends_the_spec_with_a_key_of_its_own(client: Client, service: ScriptedService) -> None:
    service.on("POST", "/v1/jobs", Answer(202, a_job(state="queued")))
    spec = JobSpec(name="m", dataset="d@1", model={"type": "Flatten"})
    first = client.jobs.submit(spec)
    client.jobs.submit(msgspec.to_builtins(spec))
    client.jobs.submit({"name": "m"}, idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in service.requests]
    assert first.id == "job_1"
    assert keys[0] != keys[1]
    assert keys[2] == "mine"
    assert service.requests[0].json() == service.requests[1].json()
    assert msgspec.json.decode(service.requests[0].body, type=JobSpec) == spec


def test_a_submit_whose_answer_was_lost_is_sent_again_with_the_same_key(
    client: Client, service: ScriptedService
) -> None:
    service.on(
        "POST",
        "/v1/jobs",
        Answer(202, a_job(), breaks_off=True),
        problem(409, "idempotency_in_flight", "still being answered", Retry_After="0"),
        Answer(202, a_job()),
    )
    assert client.jobs.submit({"name": "m"}).id == "job_1"
    assert len({request.headers["idempotency-key"] for request in service.requests}) == 1
    assert len(service.requests) == 3


def test_a_spec_that_cannot_train_raises_with_every_pointer(client: Client, service: ScriptedService) -> None:
    wrong = [
        {"pointer": "/model/layers/0/type", "code": "unknown", "message": "expected one of …, got Cov2d"},
        {"pointer": "/optimizer/lr", "code": "range", "message": "expected more than 0, got -1"},
    ]
    service.on(
        "POST",
        "/v1/plans",
        problem(422, "invalid", "the job cannot train", errors=wrong, X_Request_ID="req_9"),
    )
    with pytest.raises(errors.Invalid) as caught:
        client.jobs.plan({"name": "m"})
    assert [error.pointer for error in caught.value.errors] == ["/model/layers/0/type", "/optimizer/lr"]
    assert caught.value.request_id == "req_9"
    assert caught.value.code == "invalid"
    assert "/optimizer/lr: expected more than 0, got -1" in str(caught.value)


def test_a_plan_is_read_into_its_struct(client: Client, service: ScriptedService) -> None:
    layer = {"path": "0", "type": "Flatten", "output_shape": [64, 784], "parameters": 0, "trainable": True}
    body = {"spec": {}, "layers": [layer], "transforms": {"train": [], "eval": []},
            "parameters": 0, "trainable": 0,
            "steps_per_epoch": 3, "steps": 6, "memory_bytes": 10, "estimated_seconds": None,
            "warnings": []}  # fmt: skip
    service.on("POST", "/v1/plans", Answer(200, body))
    plan = client.jobs.plan({"name": "m"})
    assert isinstance(plan, Plan)
    assert plan.layers[0].output_shape == [64, 784]


def test_wait_polls_until_the_job_is_terminal(client: Client, service: ScriptedService) -> None:
    service.on("POST", "/v1/jobs", Answer(202, a_job(state="queued")))
    service.on(
        "GET", "/v1/jobs/job_1", Answer(200, a_job()), Answer(200, a_job()), Answer(200, succeeded_job())
    )
    handle = client.jobs.submit({})
    job = handle.wait()
    assert job.registered is not None
    assert job.registered.version == 3
    assert handle.job is job
    assert [r.query.get("wait") for r in service.requests_for("GET", "/v1/jobs/job_1")] == ["0", "30", "30"]


def test_wait_raises_what_the_job_failed_of(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs/job_1", Answer(200, failed_job()))
    handle = client.jobs.handle("job_1")
    with pytest.raises(errors.JobFailed, match="not finite at step 7") as caught:
        handle.wait()
    assert caught.value.error.code == "non_finite_loss"
    assert handle.wait(raise_on_failure=False).state == "failed"


def test_a_cancelled_job_is_an_outcome_and_no_error(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job(state="cancelled", terminal=True)))
    assert client.jobs.handle("job_1").wait().state == "cancelled"


def test_wait_gives_up_at_its_deadline_and_asks_no_longer_than_that(
    client: Client, service: ScriptedService
) -> None:
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    handle = client.jobs.handle("job_1")
    started_s = time.monotonic()
    with pytest.raises(errors.WaitTimeout, match="it goes on"):
        handle.wait(timeout_s=0.3)
    assert 0.25 < time.monotonic() - started_s < 2
    assert {r.query["wait"] for r in service.requests[2:]} == {"1"}


def test_wait_outlasts_a_service_that_restarts(client: Client, service: ScriptedService) -> None:
    service.on(
        "GET",
        "/v1/jobs/job_1",
        Answer(200, a_job()),
        Answer(200, a_job(), breaks_off=True),
        *[problem(503, "unavailable", "starting", Retry_After="0")] * 6,
        Answer(200, succeeded_job()),
    )
    assert client.jobs.handle("job_1").wait().state == "succeeded"


def test_metrics_checkpoints_cancel_and_delete_ask_for_what_was_named(
    client: Client, service: ScriptedService
) -> None:
    metric = {"name": "val_loss", "step": 5, "epoch": 1, "value": None, "at": AT, "non_finite": "nan"}
    checkpoint = {"id": "ckpt_1", "job": "job_1", "step": 5, "epoch": 1, "size": 9, "sha256": "00",
                  "state": "ready", "is_best": True, "created_at": AT}  # fmt: skip
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    service.on("GET", "/v1/jobs/job_1/metrics", Answer(200, {"items": [metric], "next": None}))
    service.on("GET", "/v1/jobs/job_1/checkpoints", Answer(200, {"items": [checkpoint], "next": None}))
    service.on("POST", "/v1/jobs/job_1/cancel", Answer(200, a_job(wanted="cancel")))
    service.on("DELETE", "/v1/jobs/job_1", Answer(204))
    handle = client.jobs.handle("job_1")
    assert next(handle.metrics(["val_loss", "lr"])).non_finite == "nan"
    assert [c.id for c in handle.checkpoints()] == ["ckpt_1"]
    assert handle.cancel().wanted == "cancel"
    assert client.jobs.cancel("job_1").wanted == "cancel"
    client.jobs.delete("job_1")
    assert service.requests_for("GET", "/v1/jobs/job_1/metrics")[0].query["names"] == "val_loss,lr"


def test_pause_and_resume_give_the_job_as_it_then_is(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    service.on("POST", "/v1/jobs/job_1/pause", Answer(202, a_job(wanted="pause")))
    service.on("POST", "/v1/jobs/job_1/resume", Answer(200, a_job(state="queued")))
    handle = client.jobs.handle("job_1")
    assert (handle.pause().wanted, handle.job.wanted) == ("pause", "pause")
    assert (handle.resume().state, handle.job.state) == ("queued", "queued")
    assert client.jobs.pause("job_1").wanted == "pause"
    assert client.jobs.resume("job_1").state == "queued"


def test_a_job_that_cannot_be_resumed_is_a_conflict(client: Client, service: ScriptedService) -> None:
    service.on("POST", "/v1/jobs/job_1/resume", problem(409, "no_such_transition", "job_1 is running"))
    with pytest.raises(errors.Conflict, match="job_1 is running"):
        client.jobs.resume("job_1")


def test_a_fork_sends_its_patch_and_where_it_starts_with_a_key_of_its_own(
    client: Client, service: ScriptedService
) -> None:
    origin = {"job": "job_1", "checkpoint": "ckpt_1"}
    service.on("GET", "/v1/jobs/job_1", Answer(200, a_job()))
    service.on(
        "POST",
        "/v1/jobs/job_1/fork",
        Answer(202, a_job(), breaks_off=True),
        Answer(202, a_job(id="job_2", forked_from=origin)),
    )
    patch = {"trainer": {"epochs": 9}, "scheduler": None}
    forked = client.jobs.fork("job_1", patch, start="best")
    assert forked.id == "job_2"
    assert forked.job.forked_from == ForkedFrom("job_1", "ckpt_1")
    client.jobs.handle("job_1").fork(idempotency_key="mine")
    sent = service.requests_for("POST", "/v1/jobs/job_1/fork")
    assert [request.json() for request in sent] == [{"patch": patch, "from": "best"}] * 2 + [{"patch": {}}]
    keys = [request.headers["idempotency-key"] for request in sent]
    assert keys[0] == keys[1]
    assert keys[2] == "mine"
