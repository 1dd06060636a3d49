"""Forks over a real socket: the spec as it was posted, patched, from the start or from a checkpoint."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import torch

from core import ids
from core.db.models import Checkpoint, Job, utc_now
from core.db.statements import checkpoints
from core.nets import artifacts
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService

Shapes = dict[str, tuple[int, ...]]

#: Of `Owner.job`: one Linear from 4 features to 3 classes.
FITTING: Shapes = {"0.weight": (3, 4), "0.bias": (3,)}


def fork(me: Owner, job_id: str, **body: Any) -> httpx2.Response:
    return me.client.post(f"/v1/jobs/{job_id}/fork", json=body)


def forked(me: Owner, job_id: str, **body: Any) -> dict[str, Any]:
    reply = fork(me, job_id, **body)
    assert reply.status_code == 202, reply.text
    return dict(reply.json())


def errors(reply: httpx2.Response) -> list[tuple[str, str]]:
    assert reply.status_code == 422, reply.text
    return [(error["pointer"], error["code"]) for error in reply.json()["errors"]]


def save(
    service: RunningService,
    me: Owner,
    job_id: str,
    step: int,
    shapes: Shapes = FITTING,
    *,
    best: bool = False,
) -> str:
    """A checkpoint as a worker writes it: the file, then the row."""
    key = f"jobs/{job_id}/{uuid4().hex}/weights.pt"
    path = service.settings.resolved_home() / "artifacts" / Path(key)
    path.parent.mkdir(parents=True)
    stored = artifacts.save({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    row = Checkpoint(
        id=ids.checkpoint_id(),
        owner=me.name,
        job_id=job_id,
        state="ready",
        fence=1,
        step=step,
        epoch=1,
        is_best=best,
        metrics={},
        weights_key=key,
        weights_bytes=stored.size,
        weights_sha256=stored.sha256,
        state_key=key,
        state_bytes=0,
        state_sha256="",
        created_at=utc_now(),
    )
    with me.database.write() as session:
        session.add(row)
        if best:
            job = session.get_one(Job, job_id)
            job.best = {"checkpoint": row.id, "step": step, "epoch": 1, "value": 0.5}
        session.commit()
        return row.id


@pytest.fixture
def job_id(me: Owner) -> str:
    me.dataset()
    return str(me.post_job(trainer={"epochs": 3, "batch_size": 30}, metadata={"by": "me"})["id"])


def test_a_fork_is_a_new_job_of_the_patched_spec_from_any_state_of_the_old(me: Owner, job_id: str) -> None:
    for state in (JobState.QUEUED, JobState.RUNNING, JobState.FAILED):
        if state is JobState.RUNNING:
            me.claim(job_id)
        elif state is JobState.FAILED:
            me.move(job_id, state)
        job = forked(me, job_id, patch={"trainer": {"epochs": 7}, "optimizer": {"type": "SGD", "lr": 0.1}})
        assert job["id"] != job_id
        assert (job["state"], job["attempt"], job["progress"]["epochs"]) == ("queued", 0, 7)
        assert job["spec"]["trainer"]["batch_size"] == 30
        assert job["spec"]["optimizer"]["type"] == "SGD"
        assert job["spec"]["metadata"] == {"by": "me"}
        assert job["forked_from"] == {"job": job_id, "checkpoint": None}
        assert me.client.get(f"/v1/jobs/{job['id']}").json() == job
    assert me.client.get(f"/v1/jobs/{job_id}").json()["forked_from"] is None


def test_a_fork_may_change_what_the_old_job_had_inferred(me: Owner, job_id: str) -> None:
    """Of the resolved spec, `in_features` of the second layer would be pinned and could not fit."""
    first = {"type": "Linear", "out_features": 8}
    job = forked(me, job_id, patch={"model": {"layers": [first, {"type": "Linear", "out_features": 3}]}})
    assert [layer["in_features"] for layer in job["spec"]["model"]["layers"]] == [4, 8]


def test_a_schedule_is_as_long_as_the_fork(me: Owner, job_id: str) -> None:
    schedule = {"type": "OneCycleLR", "max_lr": 0.1, "interval": "step"}
    first = forked(me, job_id, patch={"scheduler": schedule})
    longer = forked(me, first["id"], patch={"trainer": {"epochs": 6}})
    assert longer["spec"]["scheduler"]["total_steps"] == 2 * first["spec"]["scheduler"]["total_steps"]


def test_null_takes_a_field_out(me: Owner, job_id: str) -> None:
    job = forked(me, job_id, patch={"trainer": {"batch_size": None}, "metadata": None})
    assert (job["spec"]["trainer"]["batch_size"], job["spec"]["metadata"]) == (64, {})


def test_a_fork_learns_from_the_same_version_unless_the_patch_says_otherwise(me: Owner, job_id: str) -> None:
    me.dataset()
    assert forked(me, job_id)["dataset"]["version"] == 1
    assert forked(me, job_id, patch={"dataset": "d"})["dataset"]["version"] == 2
    assert forked(me, job_id, patch={"dataset": "d@2"})["dataset"]["version"] == 2


def test_a_job_from_before_forks_is_forked_by_its_resolved_spec(me: Owner, job_id: str) -> None:
    with me.database.write() as session:
        session.get_one(Job, job_id).submitted = None
        session.commit()
    job = forked(me, job_id, patch={"trainer": {"epochs": 2}})
    assert (job["progress"]["epochs"], job["spec"]["metadata"]) == (2, {"by": "me"})


def test_every_error_of_a_fork_comes_with_its_pointer(me: Owner, job_id: str) -> None:
    patch = {"trainer": {"epochs": 0}, "optimiser": {}, "loss": {"type": "CrossEntropy"}}
    found = errors(fork(me, job_id, patch=patch, **{"from": "ckpt_1"}))
    pointers = [pointer for pointer, _ in found]
    assert found[0] == ("/from", "unknown_checkpoint")
    assert {"/trainer/epochs", "/optimiser"} <= set(pointers)
    assert any(pointer.startswith("/loss") for pointer in pointers)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"patch": []}, "/patch"),
        ({"patch": None}, "/patch"),
        ({"patches": {}}, "/patches"),
        ({"from": 5}, "/from"),
        ({"from": ""}, "/from"),
        ({"patch": {"dataset": None}}, "/dataset"),
        ({"patch": {"dataset": "nowhere"}}, "/dataset"),
    ],
    ids=str,
)
def test_a_body_that_is_no_fork_is_refused(
    me: Owner, job_id: str, body: dict[str, Any], pointer: str
) -> None:
    assert pointer in [where for where, _ in errors(fork(me, job_id, **body))]


@pytest.mark.parametrize("body", [b'{"patch":{},"patch":{}}', b"{", b"[" * 100_000, b"\xff"], ids=str)
def test_bytes_that_are_no_strict_json_are_malformed(me: Owner, job_id: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = me.client.post(f"/v1/jobs/{job_id}/fork", content=body, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "malformed")


def test_the_same_idempotency_key_and_body_gives_the_first_fork(me: Owner, job_id: str) -> None:
    key = {"Idempotency-Key": "once"}
    url, body = f"/v1/jobs/{job_id}/fork", {"patch": {"priority": 1}}
    first = me.client.post(url, json=body, headers=key)
    assert me.client.post(url, json=body, headers=key).json() == first.json()
    other = me.client.post(url, json={"patch": {"priority": 2}}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(me.client.get("/v1/jobs").json()["items"]) == 2


def test_another_owners_job_is_not_there(service: RunningService, job_id: str) -> None:
    with service.owner() as other:
        assert fork(other, job_id).status_code == 404


# From a checkpoint


def test_a_fork_begins_with_the_best_the_last_or_a_named_checkpoint(
    service: RunningService, me: Owner, job_id: str
) -> None:
    best = save(service, me, job_id, 3, best=True)
    middle, last = save(service, me, job_id, 6), save(service, me, job_id, 9)
    for named, expected in (("best", best), ("last", last), (middle, middle)):
        job = forked(me, job_id, **{"from": named})
        assert job["forked_from"] == {"job": job_id, "checkpoint": expected}
        assert me.row(job["id"]).start_checkpoint_id == expected


@pytest.mark.parametrize("named", ["best", "last", "ckpt_0"])
def test_a_checkpoint_that_is_not_there_is_422_at_from(me: Owner, job_id: str, named: str) -> None:
    reply = fork(me, job_id, **{"from": named})
    assert errors(reply) == [("/from", "unknown_checkpoint")]
    assert "It keeps: none yet" in reply.json()["errors"][0]["message"]


def test_a_collected_checkpoint_and_one_of_another_job_are_not_there(
    service: RunningService, me: Owner, job_id: str
) -> None:
    kept, gone = save(service, me, job_id, 3), save(service, me, job_id, 2)
    elsewhere = save(service, me, me.post_job()["id"], 3)
    with me.database.write() as session:
        session.execute(checkpoints.set_checkpoint_state(gone, "collected"))
        session.commit()
    for named in (gone, elsewhere):
        reply = fork(me, job_id, **{"from": named})
        assert errors(reply) == [("/from", "unknown_checkpoint")]
        assert f"It keeps: {kept};" in reply.json()["errors"][0]["message"]


def test_a_patched_net_that_does_not_take_the_weights_is_422(
    service: RunningService, me: Owner, job_id: str
) -> None:
    save(service, me, job_id, 3)
    wider = [{"type": "Linear", "out_features": 8}, {"type": "Linear", "out_features": 3}]
    reply = fork(me, job_id, patch={"model": {"layers": wider}}, **{"from": "last"})
    assert errors(reply) == [("/model", "wrong_weights")]
    told = reply.json()["errors"][0]["message"]
    assert "it lacks 1.bias, 1.weight" in told
    assert "0.weight is [3, 4], expected [8, 4]" in told
    assert fork(me, job_id, patch={"model": {"layers": wider}}).status_code == 202


def test_a_head_of_another_size_is_no_fit_either(service: RunningService, me: Owner, job_id: str) -> None:
    """As loading does it: strictly, unlike pretrained weights, whose head may stay as it was drawn."""
    save(service, me, job_id, 3, {"0.weight": (5, 4), "0.bias": (5,)})
    assert errors(fork(me, job_id, **{"from": "last"})) == [("/model", "wrong_weights")]


def test_what_a_fork_has_yet_to_begin_with_is_kept(service: RunningService, me: Owner, job_id: str) -> None:
    start, other = save(service, me, job_id, 3), save(service, me, job_id, 6)
    child = forked(me, job_id, **{"from": start})["id"]
    with me.database.read() as session:
        assert list(session.scalars(checkpoints.needed([start, other]))) == [start]
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    reply = me.client.delete(f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json()["code"]) == (409, "job_in_use")
    assert child in reply.json()["detail"]
    me.client.post(f"/v1/jobs/{child}/cancel")
    with me.database.read() as session:
        assert list(session.scalars(checkpoints.needed([start, other]))) == []
    assert me.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert me.client.get(f"/v1/jobs/{child}").json()["forked_from"] == {"job": job_id, "checkpoint": start}
