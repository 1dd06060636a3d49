"""Every error is a problem (RFC 9457), whatever is sent."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from core.db.models import Dataset
from tests.running_service import Owner, RunningService

JSON = {"Content-Type": "application/json"}


def test_an_unknown_route_is_a_problem(service: RunningService) -> None:
    with service.client() as client:
        reply = client.get("/v1/nothing")
    assert reply.status_code == 404
    assert reply.headers["content-type"].startswith("application/problem+json")
    body = reply.json()
    assert {"type", "title", "status", "detail", "instance", "code", "errors"} <= body.keys()
    assert body["status"] == 404
    assert body["code"] == "not_found"


def test_an_unknown_page_below_schema_is_a_problem_too(service: RunningService) -> None:
    with service.client() as client:
        reply = client.get("/schema/swagger")
    assert reply.status_code == 404
    assert reply.headers["content-type"].startswith("application/problem+json")


def test_a_wrong_method_is_a_problem_that_lists_the_right_ones(service: RunningService, me: Owner) -> None:
    reply = me.client.patch("/v1/jobs")
    assert reply.status_code == 405
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert "POST" in reply.headers["allow"]


@pytest.mark.parametrize("content", [b"{}", b'{"dataset": 1}', b'{"dataset": "A b"}'])
def test_a_job_that_names_no_dataset_points_at_it(me: Owner, content: bytes) -> None:
    reply = me.client.post("/v1/jobs", content=content, headers=JSON)
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == ["/dataset"]


def test_metadata_nested_as_deep_as_json_can_be_read_is_stored_or_refused(me: Owner) -> None:
    me.dataset()
    for depth in (10, 100, 300, 500, 900, 980):
        text = '{"a":' * depth + "1" + "}" * depth
        job = json.dumps(me.job())[:-1]
        reply = me.client.post("/v1/jobs", content=f'{job},"metadata":{text}}}'.encode(), headers=JSON)
        assert reply.status_code in (202, 400, 422), (depth, reply.text[:200])
        assert me.client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=201",
        "/v1/jobs?limit=x",
        "/v1/jobs?state=odd",
        "/v1/datasets?limit=-1",
    ],
)
def test_a_parameter_out_of_bounds_is_422_and_named(me: Owner, path: str) -> None:
    reply = me.client.get(path)
    assert reply.status_code == 422
    assert f"parameter '{path.partition('?')[2].partition('=')[0]}'" in reply.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/datasets/a%00b", "/v1/jobs/x?wait=%00", "/v1/jobs?after=a%00"])
def test_a_nul_character_is_400(me: Owner, path: str) -> None:
    assert me.client.get(path).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/v1/datasets/d/versions/99999999999999999999",
        "/v1/datasets/d/versions/0",
        "/v1/models/m/versions/99999999999999999999",
        "/v1/models/m@" + "9" * 5000 + "/predict",
        "/v1/jobs/" + "x" * 3000,
        "/v1/jobs/x/metrics?after=" + "9" * 100,
        "/v1/jobs/x/events?after=99999999999999999999",
        "/v1/jobs/..%2f..%2fetc",
    ],
)
def test_absurd_names_and_numbers_are_the_clients_fault(me: Owner, path: str) -> None:
    method = "POST" if path.endswith("predict") else "GET"
    reply = me.client.request(
        method, path, headers=JSON, content=b'{"instances":[1]}' if method == "POST" else None
    )
    assert reply.status_code in (404, 422), reply.text[:300]


def test_a_wrong_content_type_is_415(me: Owner) -> None:
    reply = me.client.post(
        "/v1/jobs", content=b"x=1", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert reply.status_code == 415


def test_the_request_id_is_kept_where_it_is_sane(service: RunningService) -> None:
    with service.client() as client:
        kept = client.get("/health/live", headers={"X-Request-ID": "abc-1.2_3"})
        made = client.get("/health/live", headers={"X-Request-ID": "a b{}" * 99})
        wrong = client.get("/nothing", headers={"X-Request-ID": "me"})
    assert kept.headers["x-request-id"] == "abc-1.2_3"
    assert made.headers["x-request-id"].isalnum()
    assert wrong.headers["x-request-id"] == "me"
    assert wrong.json()["instance"].endswith(":me")


def test_every_answer_carries_the_security_headers(service: RunningService, me: Owner) -> None:
    for reply in (me.client.get("/v1/jobs"), me.client.get("/nothing"), me.client.get("/schema")):
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers


def test_a_body_refused_by_its_announced_size_is_not_read(service: RunningService, me: Owner) -> None:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {me.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        )
        raw.sendall(head.encode())
        answer = raw.makefile("rb").read()  # to the end: the service closes the connection
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer


def test_an_unexpected_exception_is_500_without_our_inside(service: RunningService, me: Owner) -> None:
    me.dataset()
    with service.database.write() as session:
        session.query(Dataset).filter_by(owner=me.name).update({"manifest": {"secret": "broken"}})
        session.commit()
    reply = me.client.get("/v1/datasets/d")
    assert reply.status_code == 500
    assert reply.json()["code"] == "internal"
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/datasets"])
@pytest.mark.parametrize("cursor", ["zzz", "AAAA", "", "%ff"])
def test_a_cursor_that_no_page_gave_is_refused(me: Owner, path: str, cursor: str) -> None:
    reply = me.client.get(f"{path}?after={cursor}")
    assert reply.status_code in (400, 422), reply.text
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/jobs?limt=5", 'Did you mean "limit"?'),
        ("/v1/jobs?stat=queued", "after, limit, name, state"),
        ("/v1/datasets?fromat=table", "takes after, limit"),
        ("/v1/jobs/job_0?x=1", "takes wait"),
        ("/health/live?x=1", "takes no query parameters"),
        ("/schema/openapi.json?x=1", "takes no query parameters"),
        ("/v1/jobs?state=runing", "expected one of queued, running"),
    ],
)
def test_a_query_parameter_that_a_route_does_not_take_is_told_with_those_it_takes(
    me: Owner, path: str, said: str
) -> None:
    reply = me.client.get(path)
    assert reply.status_code == 422, reply.text
    assert said in reply.json()["detail"]


def test_who_has_no_key_is_told_that_before_a_wrong_parameter(service: RunningService) -> None:
    with service.client() as client:
        assert client.get("/v1/jobs?limt=5").status_code == 401


def test_an_unknown_field_of_a_form_is_told_with_the_nearest(me: Owner) -> None:
    form = {"name": "d", "fromat": "table"}
    reply = me.client.post("/v1/datasets", data=form, files={"file": ("d.csv", b"x,y\n1,2\n")})
    assert (reply.status_code, reply.json()["code"]) == (422, "unknown_field")
    assert 'Did you mean "format"?' in reply.json()["detail"]
    assert me.client.get("/v1/datasets").json()["items"] == []
