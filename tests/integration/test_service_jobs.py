"""Jobs over a real socket: submitted, listed, waited for, cancelled, deleted."""

import threading
import time

import pytest

from core.db.models import Dataset, Worker, utc_now
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService

JSON = {"Content-Type": "application/json"}


def test_a_job_is_queued_with_everything_filled_in(me: Owner) -> None:
    me.dataset()
    reply = me.client.post("/v1/jobs", json=me.job())
    assert reply.status_code == 202, reply.text
    job = reply.json()
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["terminal"], job["wanted"]) == ("queued", False, "run")
    assert job["dataset"] == {"name": "d", "version": 1, "sha256": job["dataset"]["sha256"]}
    assert job["spec"]["dataset"] == "d@1"
    assert job["spec"]["loss"]["type"] == "CrossEntropyLoss"
    assert job["spec"]["model"]["layers"][0]["in_features"] == 4
    assert job["progress"]["epochs"] == 5
    assert [one["state"] for one in job["transitions"]] == ["queued"]
    events = me.client.get(f"/v1/jobs/{job['id']}/events").json()["items"]
    assert [(one["seq"], one["type"]) for one in events] == [(1, "state")]
    stored = me.client.get(f"/v1/jobs/{job['id']}").json()
    assert stored == job


def test_what_cannot_train_is_422_with_pointers_and_queues_nothing(me: Owner) -> None:
    me.dataset()
    layers = [{"type": "Linear", "in_features": 7, "out_features": 3}, {"type": "Conv9"}]
    reply = me.client.post("/v1/jobs", json=me.job(model={"type": "Sequential", "layers": layers}))
    assert reply.status_code == 422
    assert all(error["pointer"].startswith("/model/layers/") for error in reply.json()["errors"])
    assert reply.json()["errors"]
    assert me.client.get("/v1/jobs").json()["items"] == []


def test_a_plan_shows_the_layers_and_queues_nothing(me: Owner) -> None:
    me.dataset()
    reply = me.client.post("/v1/plans", json=me.job())
    assert reply.status_code == 200, reply.text
    plan = reply.json()
    assert plan["parameters"] == 4 * 3 + 3
    assert plan["layers"][0]["output_shape"][1:] == [3]
    assert me.client.get("/v1/jobs").json()["items"] == []


def test_the_catalogue_lists_components_of_a_family(me: Owner) -> None:
    layers = me.client.get("/v1/components?family=layer").json()
    assert {"Linear", "Conv2d", "ReLU"} <= {one["type"] for one in layers}
    assert {one["family"] for one in layers} == {"layer"}
    assert len(me.client.get("/v1/components").json()) > len(layers)
    unknown = me.client.get("/v1/components?family=cheese")
    assert unknown.status_code == 422
    assert "layer" in unknown.json()["detail"]


def test_a_bare_name_is_the_newest_ready_version(me: Owner) -> None:
    me.dataset()
    me.dataset()
    me.dataset(state="ingesting")
    assert me.post_job()["dataset"]["version"] == 2
    assert me.post_job(dataset="d@1")["dataset"]["version"] == 1


def test_an_unknown_dataset_is_422(me: Owner) -> None:
    me.dataset()
    for reference in ("other", "d@2"):
        reply = me.client.post("/v1/jobs", json=me.job(dataset=reference))
        assert reply.status_code == 422
        assert reply.json()["errors"][0] | {"message": ""} == {
            "pointer": "/dataset",
            "code": "unknown_dataset",
            "message": "",
        }


def test_an_unknown_dataset_is_answered_with_the_nearest_name_and_the_versions_there_are(me: Owner) -> None:
    me.dataset(name="digits")
    me.dataset(name="digits")
    told = {}
    for reference in ("digit", "digits@7", "weather"):
        (error,) = me.client.post("/v1/jobs", json=me.job(dataset=reference)).json()["errors"]
        told[reference] = error["message"]
    assert told["digit"] == 'you have no dataset digit. Did you mean "digits"? Or upload it first'
    assert told["digits@7"] == "you have no dataset digits@7; the newest versions of digits are 2, 1"
    assert told["weather"] == "you have no dataset weather; upload it first"


@pytest.mark.parametrize("body", ["[]", "null", '"spec"', "5"])
def test_a_body_that_is_no_object_is_refused_at_its_root(me: Owner, body: str) -> None:
    reply = me.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == [""]


def test_a_nul_in_the_metadata_never_breaks_the_service(me: Owner) -> None:
    me.dataset()
    reply = me.client.post("/v1/jobs", json=me.job(metadata={"a\x00": "b\x00"}))
    assert reply.status_code == 202, reply.text
    again = me.client.get(f"/v1/jobs/{reply.json()['id']}")
    assert again.json()["spec"]["metadata"] == {"a\x00": "b\x00"}


def test_a_dataset_that_is_only_processing_is_409_with_a_wait(me: Owner) -> None:
    me.dataset(state="queued")
    for reference in ("d", "d@1"):
        reply = me.client.post("/v1/jobs", json=me.job(dataset=reference))
        assert reply.status_code == 409
        assert reply.json()["code"] == "dataset_not_ready"
        assert int(reply.headers["retry-after"]) > 0


def test_a_dataset_that_failed_is_422(me: Owner) -> None:
    me.dataset(state="failed", error={"detail": "corrupt.png is no image"})
    reply = me.client.post("/v1/jobs", json=me.job())
    assert reply.status_code == 422
    assert "corrupt.png" in reply.json()["detail"]


def test_device_auto_goes_to_a_gpu_only_where_one_is_known(service: RunningService, me: Owner) -> None:
    me.dataset()
    assert me.row(me.post_job()["id"]).pool == "cpu"
    on_cuda = me.post_job(trainer={"device": "cuda"})
    assert me.row(on_cuda["id"]).pool == "gpu"
    assert any("gpu" in warning for warning in on_cuda["warnings"])
    worker = Worker(
        id=f"wrk_{me.name}", host="h", pid=1, pool="gpu", devices=[], slots=1, torch="2", started_at=utc_now()
    )
    with service.database.write() as session:
        session.add(worker)
        session.commit()
    try:
        assert me.row(me.post_job()["id"]).pool == "gpu"
        assert me.row(me.post_job(trainer={"device": "cpu"})["id"]).pool == "cpu"
    finally:
        with service.database.write() as session:
            session.delete(session.get_one(Worker, worker.id))
            session.commit()


def test_the_same_idempotency_key_and_body_gives_the_first_answer(me: Owner) -> None:
    me.dataset()
    key = {"Idempotency-Key": "k1"}
    first = me.client.post("/v1/jobs", json=me.job(), headers=key)
    me.claim(first.json()["id"])
    again = me.client.post("/v1/jobs", json=me.job(), headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert len(me.client.get("/v1/jobs").json()["items"]) == 1
    other = me.client.post("/v1/jobs", json=me.job(priority=1), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert me.client.post("/v1/jobs", json=me.job(), headers={"Idempotency-Key": "k2"}).json() != first.json()


def test_an_idempotency_key_is_each_owners_own(service: RunningService, me: Owner) -> None:
    key = {"Idempotency-Key": "shared"}
    me.dataset()
    mine = me.client.post("/v1/jobs", json=me.job(), headers=key).json()
    with service.owner() as other:
        other.dataset()
        theirs = other.client.post("/v1/jobs", json=other.job(), headers=key).json()
    assert mine["id"] != theirs["id"]


def test_ten_requests_at_once_with_one_key_make_one_job(service: RunningService, me: Owner) -> None:
    me.dataset()
    answers: list[tuple[int, str]] = []

    def post() -> None:
        with service.client(me.key) as client:
            reply = client.post("/v1/jobs", json=me.job(), headers={"Idempotency-Key": "once"})
            answers.append((reply.status_code, reply.json().get("id", reply.json().get("code"))))

    threads = [threading.Thread(target=post) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({body for status, body in answers if status == 202}) == 1
    assert {body for status, body in answers if status != 202} <= {"idempotency_in_flight"}
    assert len(me.client.get("/v1/jobs").json()["items"]) == 1


def test_a_queued_job_is_cancelled_at_once(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    reply = me.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["state"], reply.json()["terminal"]) == (200, "cancelled", True)
    assert reply.json()["finished_at"] is not None
    again = me.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "no_such_transition")


def test_a_running_job_is_asked_to_stop(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    fence = me.claim(job_id)
    for _ in range(2):  # asking twice is no error
        reply = me.client.post(f"/v1/jobs/{job_id}/cancel")
        assert (reply.status_code, reply.json()["state"], reply.json()["wanted"]) == (
            202,
            "running",
            "cancel",
        )
    me.report(job_id, fence)  # the supervisor's next beat still works
    me.move(job_id, JobState.CANCELLED)
    assert me.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_only_a_job_that_has_ended_is_deleted(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    assert me.client.delete(f"/v1/jobs/{job_id}").status_code == 409
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    assert me.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert me.client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert me.client.get(f"/v1/jobs/{job_id}/events").status_code == 404


def test_lists_page_newest_first_and_filter(me: Owner) -> None:
    me.dataset()
    made = [me.post_job(name=f"m{number % 2}")["id"] for number in range(5)]
    seen: list[str] = []
    after = None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = me.client.get("/v1/jobs", params=params).json()
        seen += [one["id"] for one in page["items"]]
        if (after := page["next"]) is None:
            break
    assert seen == made[::-1]
    assert [one["id"] for one in me.client.get("/v1/jobs?name=m1").json()["items"]] == [made[3], made[1]]
    me.client.post(f"/v1/jobs/{made[0]}/cancel")
    assert [one["id"] for one in me.client.get("/v1/jobs?state=cancelled").json()["items"]] == [made[0]]


def test_a_job_that_has_not_changed_is_304(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    etag = me.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    same = me.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    me.claim(job_id)
    changed = me.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["state"]) == (200, "running")


def test_wait_holds_until_the_job_changes(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    timer = threading.Timer(0.4, me.claim, (job_id,))
    timer.start()
    started = time.monotonic()
    job = me.client.get(f"/v1/jobs/{job_id}?wait=20").json()
    timer.join()
    assert job["state"] == "running"
    assert 0.3 < time.monotonic() - started < 3


def test_wait_with_an_old_etag_answers_at_once(me: Owner) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    etag = me.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    me.claim(job_id)
    started = time.monotonic()
    reply = me.client.get(f"/v1/jobs/{job_id}?wait=20", headers={"If-None-Match": etag})
    assert reply.json()["state"] == "running"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("has_etag", [False, True])
def test_wait_ends_with_its_time_or_with_the_job(me: Owner, has_etag: bool) -> None:
    me.dataset()
    job_id = me.post_job()["id"]
    etag = me.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    headers = {"If-None-Match": etag} if has_etag else {}
    started = time.monotonic()
    reply = me.client.get(f"/v1/jobs/{job_id}?wait=0.3", headers=headers)
    assert reply.status_code == (304 if has_etag else 200)
    assert 0.25 < time.monotonic() - started < 3
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    started = time.monotonic()
    assert me.client.get(f"/v1/jobs/{job_id}?wait=20").json()["terminal"]
    assert time.monotonic() - started < 3


def test_a_job_is_taken_while_the_broker_is_away(me: Owner) -> None:
    me.dataset()
    started = time.monotonic()
    me.post_job()
    assert time.monotonic() - started < 2
    assert me.client.get("/health/ready").status_code == 200


def test_a_dataset_deleted_while_the_job_is_checked_is_409_or_422(me: Owner) -> None:
    dataset_id = me.dataset()
    with me.database.write() as session:
        session.get_one(Dataset, dataset_id).state = "deleted"
        session.commit()
    assert me.client.post("/v1/jobs", json=me.job()).status_code == 422
