"""Bad input is refused with a Problem that says what is wrong, and nothing is left behind."""

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from deploy.embed import RunningStack
from modelyard import Client
from service.keys import new_key
from tests.make_data import csv_bytes, image_bytes, image_csv, image_folder, zip_bytes

JSON = {"Content-Type": "application/json"}
FIELDS = {"type", "title", "status", "detail", "instance", "code", "errors"}


def problem_of(reply: httpx2.Response, status: int) -> dict[str, Any]:
    """The body, which is a problem as RFC 9457 writes it."""
    assert reply.status_code == status, reply.text[:500]
    assert reply.headers["content-type"].split(";")[0] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem.keys() == FIELDS
    assert problem["status"] == status
    assert all(problem[name] for name in FIELDS - {"errors"})
    assert reply.headers["x-request-id"] in problem["instance"]
    return problem


@pytest.fixture(scope="module")
def table(client: Client) -> str:
    """Six numbers and a class, ready to be trained on."""
    rows = [[*(index * step % 7 for step in range(1, 7)), "ab"[index % 2]] for index in range(60)]
    data = csv_bytes([["a", "b", "c", "d", "e", "f", "kind"], *rows])
    client.datasets.push("refusals-table", data, format="table")
    return "refusals-table"


def job(dataset: str, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"name": "refused", "dataset": dataset, "model": {"type": "Sequential", "layers": list(layers)}}


def truncated_zip() -> bytes:
    whole = zip_bytes(image_folder(["cat", "dog"], per_class=20))
    return whole[: len(whole) // 2]


def csv_naming_a_missing_file() -> bytes:
    files = image_csv(
        {"train": [(f"images/{number}.png", ["cat", "dog"][number % 2]) for number in range(6)]}
    )
    del files["images/3.png"]
    return zip_bytes(files)


def corrupt_png() -> bytes:
    picture = bytearray(image_bytes(3, size=(32, 32)))
    middle = len(picture) // 2
    picture[middle : middle + 64] = bytes(64)
    return zip_bytes({**image_folder(["cat", "dog"]), "dog/torn.png": bytes(picture)})


def archive_that_climbs() -> bytes:
    return zip_bytes({**image_folder(["cat", "dog"]), "../climbed.png": image_bytes()})


@pytest.mark.parametrize(
    ("make", "code", "told"),
    [
        (truncated_zip, "truncated_archive", "the archive is cut short"),
        (csv_naming_a_missing_file, "missing_file", "/train.csv/rows/4"),
        (corrupt_png, "corrupt_image", "dog/torn.png"),
        (archive_that_climbs, "unsafe_path", "../climbed.png"),
    ],
)
def test_upload_that_cannot_be_read_fails_naming_the_place_and_leaves_nothing(
    stack: RunningStack, http: httpx2.Client, make: Callable[[], bytes], code: str, told: str
) -> None:
    name = code.replace("_", "-")
    sent = http.put(f"/v1/datasets/{name}", content=make())
    assert sent.status_code == 202, sent.text
    dataset = sent.json()
    while dataset["state"] == "processing":
        dataset = http.get(f"/v1/datasets/{name}", params={"wait": 30}).json()

    assert dataset["state"] == "failed"
    assert dataset["error"]["code"] == code
    assert told in dataset["error"]["detail"]
    assert dataset["num_samples"] is None
    eventually_without_files(stack.home / "scratch" / "ingest" / dataset["id"])
    eventually_without_files(stack.home / "scratch" / "spool")
    stored = (stack.home / "artifacts" / "datasets" / dataset["id"]).rglob("*")
    assert [path.name for path in stored] == ["source"]
    refused = problem_of(http.post("/v1/jobs", json=job(name, {"type": "Flatten"})), 422)
    assert refused["errors"][0]["pointer"] == "/dataset"


def test_linear_that_does_not_fit_is_422_at_its_layer_and_queues_nothing(
    http: httpx2.Client, table: str
) -> None:
    before = http.get("/v1/jobs").json()["items"]
    spec = job(
        table,
        {"type": "Linear", "out_features": 8},
        {"type": "ReLU"},
        {"type": "Linear", "in_features": 9, "out_features": 2},
    )
    problem = problem_of(http.post("/v1/jobs", json=spec), 422)

    assert [error["pointer"] for error in problem["errors"]] == ["/model/layers/2"]
    assert "8" in problem["errors"][0]["message"]
    assert "9" in problem["errors"][0]["message"]
    assert http.get("/v1/jobs").json()["items"] == before


def test_every_error_of_a_spec_is_told_at_once_each_with_its_pointer(http: httpx2.Client, table: str) -> None:
    spec = job(table, {"type": "Linear", "out_features": 0}, {"type": "Liner", "out_features": 2})
    spec["optimizer"] = {"type": "SGD", "lr": "fast"}
    spec["trainer"] = {"epochs": 0}
    problem = problem_of(http.post("/v1/jobs", json=spec), 422)

    pointers = {error["pointer"] for error in problem["errors"]}
    assert pointers >= {"/model/layers/1/type", "/optimizer/lr", "/trainer/epochs"}, pointers
    assert any("Linear" in error["message"] for error in problem["errors"])


def test_unknown_dataset_is_422_at_the_dataset(http: httpx2.Client) -> None:
    problem = problem_of(http.post("/v1/jobs", json=job("nowhere", {"type": "Flatten"})), 422)
    assert problem["code"] == "unknown_dataset"
    assert problem["errors"][0]["pointer"] == "/dataset"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="none"),
        pytest.param(f"Bearer {new_key()}", id="unknown"),
        pytest.param("Bearer mdy_short", id="malformed"),
        pytest.param("Basic YWRtaW46YWRtaW4=", id="another scheme"),
    ],
)
def test_request_without_a_key_of_ours_is_401_and_says_how_to_send_one(
    stack: RunningStack, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    with httpx2.Client(base_url=stack.url, headers=headers, trust_env=False) as stranger:
        for reply in (stranger.get("/v1/jobs"), stranger.put("/v1/datasets/mine", content=b"a,b\n1,2\n")):
            problem = problem_of(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "mdy_" in problem["detail"] or "key" in problem["detail"]
            assert header is None or header.split()[1] not in reply.text


def test_key_with_one_wrong_letter_is_401(stack: RunningStack) -> None:
    wrong = stack.key[:10] + ("A" if stack.key[10] != "A" else "B") + stack.key[11:]
    with httpx2.Client(base_url=stack.url, trust_env=False) as stranger:
        problem_of(stranger.get("/v1/jobs", headers={"Authorization": f"Bearer {wrong}"}), 401)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"epochs: 5", 400, id="no JSON"),
        pytest.param(b'{"name": "m", "dataset": "d"', 400, id="cut off"),
        pytest.param(b'{"name": "m", "name": "n", "dataset": "d"}', 400, id="duplicate keys"),
        pytest.param(b'{"trainer": {"epochs": 1, "epochs": 2}}', 400, id="duplicate keys inside"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, 400, id="100,000 levels of lists"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, id="100,000 levels of objects"),
        pytest.param(b'{"name": NaN}', 400, id="NaN"),
        pytest.param(b"[1, 2]", 422, id="no object"),
        pytest.param(b" " * 2_000_000, 413, id="two megabytes"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/plans"])
def test_body_that_is_no_job_is_refused(http: httpx2.Client, route: str, content: bytes, status: int) -> None:
    problem_of(http.post(route, content=content, headers=JSON), status)


def test_unknown_route_is_404_and_wrong_method_405_with_the_right_ones(http: httpx2.Client) -> None:
    problem_of(http.get("/v1/nothing/here"), 404)
    wrong = http.patch("/v1/datasets/some")
    problem_of(wrong, 405)
    assert {"GET", "PUT", "DELETE"} <= set(wrong.headers["allow"].replace(" ", "").split(","))


@pytest.mark.parametrize(
    "name", ["Upper", "-leads", "with space", "snowman-☃", "x" * 64, "a:b", "a$b", "a@1"]
)
def test_dataset_with_a_name_outside_the_pattern_is_422_and_not_made(http: httpx2.Client, name: str) -> None:
    before = http.get("/v1/datasets").json()["items"]
    problem = problem_of(http.put(f"/v1/datasets/{quote(name, safe='')}", content=b"a,b\n1,2\n"), 422)
    assert "a-z0-9" in problem["detail"]
    assert http.get("/v1/datasets").json()["items"] == before


@pytest.mark.parametrize(
    "path",
    [
        "/v1/datasets/../../admin.key",
        "/v1/datasets/..%2f..%2fadmin.key",
        "/v1/datasets/%2e%2e",
        "/v1/datasets/..%5c..%5cadmin.key",
        "/v1/datasets/%2fetc%2fpasswd",
        "/v1/datasets/a%00b",
        "/v1/checkpoints/..%2f..%2fadmin.key/weights",
        "/v1/models/..%2f..%2fadmin.key/predict",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_path_that_climbs_is_a_problem_and_nothing_else(stack: RunningStack, method: str, path: str) -> None:
    before, key = kept_by(stack), stack.key
    address = urlsplit(stack.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=30)  # sends the path as it stands
    try:
        connection.request(method, path, b"a,b\n1,2\n", {"Authorization": f"Bearer {stack.key}"})
        reply = connection.getresponse()
        said = reply.read()
    finally:
        connection.close()

    assert reply.status in (400, 404, 405, 422), said
    assert reply.headers["content-type"].split(";")[0] == "application/problem+json"
    assert json.loads(said)["status"] == reply.status
    assert key.encode() not in said
    assert (kept_by(stack), stack.key) == (before, key)


def test_form_over_10_megabytes_is_413_and_points_at_put(stack: RunningStack, http: httpx2.Client) -> None:
    before = http.get("/v1/datasets").json()["items"]
    reply = http.post(
        "/v1/datasets", data={"name": "large"}, files={"file": ("large.csv", b"1," * 6_000_000)}
    )
    problem = problem_of(reply, 413)

    assert "PUT /v1/datasets/" in problem["detail"]
    assert http.get("/v1/datasets").json()["items"] == before
    eventually_without_files(stack.home / "scratch" / "spool")


def kept_by(stack: RunningStack) -> set[Path]:
    return set((stack.home / "artifacts").rglob("*"))


def eventually_without_files(folder: Path, within_s: float = 5) -> None:
    """What a worker still held when it told the outcome is gone soon after."""
    deadline = time.monotonic() + within_s
    while left := [path for path in folder.rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)
