"""Datasets as a user meets them: pushed, listed, looked into, deleted."""

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_iris

from modelyard import Client, errors
from modelyard.specs import JobState
from tests.make_data import csv_bytes, image_bytes, image_folder, npz_bytes, zip_bytes


def numbers(start: int, rows: int = 40) -> bytes:
    """A small table; another `start` makes other bytes."""
    return csv_bytes([["x", "y"], *([start + index, 2 * index] for index in range(rows))])


def test_same_bytes_twice_are_one_version_and_other_bytes_the_next(http: httpx2.Client) -> None:
    first = http.put("/v1/datasets/twice", content=numbers(0), params={"format": "table"})
    again = http.put("/v1/datasets/twice", content=numbers(0), params={"format": "table"})
    other = http.put("/v1/datasets/twice", content=numbers(1), params={"format": "table"})

    assert [reply.status_code for reply in (first, again, other)] == [202, 200, 202]
    assert [reply.json()["version"] for reply in (first, again, other)] == [1, 1, 2]
    assert again.json()["id"] == first.json()["id"]
    assert first.json()["sha256"] == hashlib.sha256(numbers(0)).hexdigest()
    assert first.json()["bytes"] == len(numbers(0))
    assert other.headers["location"] == "/v1/datasets/twice/versions/2"
    back = http.put("/v1/datasets/twice", content=numbers(0), params={"format": "table"})
    assert (back.status_code, back.json()["version"]) == (202, 3)  # the newest holds other bytes


def test_upload_is_detected_read_and_told_in_full(client: Client) -> None:
    iris = load_iris()
    rows = [
        [*values, iris.target_names[kind]]
        for values, kind in zip(iris.data.tolist(), iris.target, strict=True)
    ]
    header = ["sepal length", "sepal width", "petal length", "petal width", "kind"]
    files = {"train.csv": csv_bytes([header, *rows[:120]]), "test.csv": csv_bytes([header, *rows[120:]])}
    dataset = client.datasets.push("told", zip_bytes(files))

    assert (dataset.state, dataset.format, dataset.error) == ("ready", "table", None)
    assert (dataset.num_samples, dataset.splits) == (150, {"train": 120, "test": 30})
    assert [dataset.features[name].dtype for name in header] == ["float64"] * 4 + ["string"]
    column = dataset.stats["columns"]["sepal length"]
    assert column["mean"] == pytest.approx(iris.data[:120, 0].mean())
    assert (column["min"], column["max"]) == (iris.data[:120, 0].min(), iris.data[:120, 0].max())
    assert client.datasets.get("told") == dataset == client.datasets.get("told", version=1)
    assert dataset in list(client.datasets.list())
    assert list(client.datasets.versions("told")) == [dataset]


def test_samples_are_the_rows_that_were_uploaded(client: Client) -> None:
    files = image_folder(["cat", "dog"], per_class=4)
    client.datasets.push("seen", zip_bytes(files))
    samples = client.datasets.samples("seen", limit=5)

    assert (samples.split, len(samples.items)) == ("train", 5)
    pictures = {
        label: [pixels_of(data) for name, data in files.items() if name.startswith(label)]
        for label in ("cat", "dog")
    }
    for sample in samples.items:
        assert sample.values["image"] in pictures[sample.values["label"]]
    with pytest.raises(errors.NotFound, match="no split 'test'; it has train"):
        client.datasets.samples("seen", split="test")


def pixels_of(png: bytes) -> Any:
    """[1, H, W] as Pillow reads it."""
    return np.array(Image.open(io.BytesIO(png)))[None].tolist()


def test_preview_is_a_png_with_a_cell_for_each_picture(client: Client) -> None:
    client.datasets.push("seen", zip_bytes(image_folder(["cat", "dog"], per_class=4)))
    small, large = (
        Image.open(io.BytesIO(client.datasets.preview("seen", rows=rows, cols=cols)))
        for rows, cols in ((1, 2), (2, 4))
    )

    assert small.format == large.format == "PNG"
    assert small.width >= 2 * 64
    assert small.height >= 64
    assert large.width == pytest.approx(2 * small.width, rel=0.1)
    assert large.height == pytest.approx(2 * small.height, rel=0.1)
    assert len(large.convert("L").getcolors() or []) > 50  # random greys, not an empty sheet
    with pytest.raises(errors.Invalid):
        client.datasets.preview("seen", rows=0)


def test_preview_of_a_table_is_refused(client: Client) -> None:
    client.datasets.push("twice", numbers(0), format="table")
    with pytest.raises(errors.Invalid, match="images"):
        client.datasets.preview("twice")


def test_wait_holds_the_answer_until_the_rows_are_read(http: httpx2.Client) -> None:
    sent = http.put("/v1/datasets/waited", content=numbers(3), params={"format": "table"}).json()
    shown = http.get("/v1/datasets/waited", params={"wait": 30}).json()
    while shown["state"] == "processing":  # it changes once when its ingest begins
        shown = http.get("/v1/datasets/waited", params={"wait": 30}).json()
    asked = time.monotonic()
    again = http.get("/v1/datasets/waited", params={"wait": 30}).json()

    assert sent["state"] == "processing"
    assert shown["state"] == "ready"
    assert again == shown
    assert time.monotonic() - asked < 5  # nothing to wait for


def test_form_is_taken_as_a_put_is(http: httpx2.Client) -> None:
    archive = npz_bytes(x=[[0.5, 1.5]] * 20, y=[0, 1] * 10)
    reply = http.post(
        "/v1/datasets",
        data={"name": "form", "format": "arrays"},
        files={"file": ("../arrays.npz", archive, "application/octet-stream")},
    )
    by_put = http.put("/v1/datasets/form", content=archive, params={"format": "arrays"})

    assert reply.status_code == 202, reply.text
    assert reply.headers["location"] == "/v1/datasets/form/versions/1"
    assert reply.json()["sha256"] == hashlib.sha256(archive).hexdigest()
    assert (by_put.status_code, by_put.json()["id"]) == (200, reply.json()["id"])


@pytest.mark.parametrize("missing", ["file", "name"])
def test_form_without_its_file_or_its_name_is_422(http: httpx2.Client, missing: str) -> None:
    data = {} if missing == "name" else {"name": "form"}
    files = {"file": ("x.csv", numbers(0))} if missing == "name" else {"other": ("x.csv", numbers(0))}
    reply = http.post("/v1/datasets", data=data, files=files)
    assert reply.status_code == 422
    assert missing in reply.json()["detail"]


def test_deleted_version_is_gone_and_its_number_is_not_given_again(
    client: Client, http: httpx2.Client
) -> None:
    for start in (0, 1):
        client.datasets.push("short-lived", numbers(start), format="table")
    client.datasets.delete("short-lived", 2)
    with pytest.raises(errors.NotFound):
        client.datasets.get("short-lived", version=2)
    assert client.datasets.get("short-lived").version == 1
    assert client.datasets.push("short-lived", numbers(2), format="table").version == 3

    assert http.delete("/v1/datasets/short-lived").status_code == 204
    for path in ("", "/versions", "/versions/1", "/samples", "/preview.png"):
        assert http.get(f"/v1/datasets/short-lived{path}").status_code == 404
    assert http.delete("/v1/datasets/short-lived").status_code == 404


def test_dataset_is_kept_while_a_job_reads_it(client: Client) -> None:
    client.datasets.push("read", numbers(0), format="table")
    spec = {
        "name": "reader",
        "dataset": "read",
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]},
        "loss": {"type": "MSELoss"},
        "trainer": {"epochs": 1_000_000},
    }
    job = client.jobs.submit(spec)
    with pytest.raises(errors.Conflict, match=job.id):
        client.datasets.delete("read", 1)
    job.cancel()
    assert job.wait(timeout_s=30).state is JobState.CANCELLED
    client.datasets.delete("read", 1)
    with pytest.raises(errors.NotFound):
        client.datasets.get("read")


@contextmanager
def many(http: httpx2.Client, count: int) -> Iterator[set[str]]:
    """So many names, deleted at the end: a worker need not read them all."""
    names = {f"page-{number:02}" for number in range(count)}
    for name in sorted(names):
        assert http.put(f"/v1/datasets/{name}", content=image_bytes()).status_code == 202
    try:
        yield names
    finally:
        for name in names:
            http.delete(f"/v1/datasets/{name}")


def test_list_of_more_than_a_page_is_walked_newest_first_without_gap_or_repeat(
    http: httpx2.Client, client: Client
) -> None:
    with many(http, 23) as names:
        first = http.get("/v1/datasets").json()
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": None}
        while not found or page["next"]:
            after = {"after": page["next"]} if page["next"] else {}
            page = http.get("/v1/datasets", params={"limit": 7, **after}).json()
            assert len(page["items"]) <= 7
            found += page["items"]
        by_client = [dataset.name for dataset in client.datasets.list()]

    assert len(first["items"]) == 20
    assert first["next"]
    listed = [one["name"] for one in found]
    assert len(set(listed)) == len(listed)
    assert listed[:23] == sorted(names, reverse=True)
    assert by_client == listed
    assert [one["created_at"] for one in found] == sorted((one["created_at"] for one in found), reverse=True)
