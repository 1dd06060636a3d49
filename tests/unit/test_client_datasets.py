"""Pushing and reading datasets, against a real server on loopback."""

import hashlib
import io
import time
import zipfile
from pathlib import Path

import pytest

from modelyard import Client, errors
from modelyard.resources.uploads import zip_folder
from tests.unit.scripted_service import (
    PNG,
    Answer,
    Request,
    ScriptedService,
    a_dataset,
    problem,
)


def test_push_streams_the_file_and_waits_until_it_is_ready(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 12_000  # three pieces of 1 MiB
    file = tmp_path / "größe.zip"
    file.write_bytes(data)
    service.on("PUT", "/v1/datasets/mnist", Answer(202, a_dataset(state="processing")))
    service.on(
        "GET",
        "/v1/datasets/mnist/versions/1",
        Answer(200, a_dataset(state="processing")),
        Answer(200, a_dataset()),
    )
    seen: list[tuple[int, int | None]] = []
    dataset = client.datasets.push(
        "mnist",
        file,
        format="image_csv",
        options={"a": 1},
        on_progress=lambda sent, total: seen.append((sent, total)),
    )
    put = service.requests_for("PUT", "/v1/datasets/mnist")[0]
    assert hashlib.sha256(put.body).digest() == hashlib.sha256(data).digest()
    assert put.query == {"format": "image_csv", "options": '{"a":1}'}
    assert put.headers["content-length"] == str(len(data))
    assert put.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.zip"
    assert seen[-1] == (len(data), len(data))
    assert len(seen) == 3
    assert dataset.state == "ready"
    assert dataset.features["image"].shape == [1, 28, 28]
    assert service.requests[-1].query == {"wait": "30"}


def test_push_tells_why_an_upload_could_not_be_read(client: Client, service: ScriptedService) -> None:
    reason = {"type": "about:blank", "title": "Invalid", "status": 422, "code": "missing_file",
              "detail": "row 3 names a.png, which is not in the archive"}  # fmt: skip
    service.on("PUT", "/v1/datasets/mnist", Answer(202, a_dataset(state="failed", error=reason)))
    with pytest.raises(errors.DatasetFailed, match=r"row 3 names a\.png") as caught:
        client.datasets.push("mnist", b"bytes")
    assert caught.value.dataset.version == 1


def test_push_takes_what_can_only_be_read_once(client: Client, service: ScriptedService) -> None:
    class Pipe(io.RawIOBase):
        pieces = [b"first ", b"second", b""]  # noqa: RUF012

        def read(self, size: int = -1) -> bytes:
            return self.pieces.pop(0)

    service.on("PUT", "/v1/datasets/d", Answer(200, a_dataset()))
    client.datasets.push("d", Pipe())  # type: ignore[arg-type]
    assert service.requests[0].body == b"first second"
    assert service.requests[0].headers["transfer-encoding"] == "chunked"


def test_an_upload_that_was_refused_for_now_is_sent_again_from_its_start(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"x,y\n1,2\n")
    busy = problem(503, "unavailable", "busy", Retry_After="0")
    service.on("PUT", "/v1/datasets/d", busy, Answer(200, a_dataset()))
    client.datasets.push("d", file)
    assert [request.body for request in service.requests] == [b"x,y\n1,2\n"] * 2


def test_pushing_a_folder_sends_a_zip_of_its_files(
    client: Client, service: ScriptedService, tmp_path: Path
) -> None:
    for name in ("cat/1.png", "dog/2.png", ".hidden/3.png", "dog/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    service.on("PUT", "/v1/datasets/pets", Answer(200, a_dataset()))
    client.datasets.push("pets", tmp_path)
    with zipfile.ZipFile(io.BytesIO(service.requests[0].body)) as archive:
        assert archive.namelist() == ["cat/1.png", "dog/2.png"]
        assert archive.read("dog/2.png") == b"dog/2.png"


def test_zipping_a_folder_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 1000)
    with zip_folder(tmp_path) as first:
        once = first.read()
    time.sleep(0.01)
    (tmp_path / "a.txt").touch()
    with zip_folder(tmp_path) as second:
        assert second.read() == once


def test_an_empty_folder_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="expected a folder with files"):
        client.datasets.push("d", tmp_path)


def test_lists_are_walked_page_by_page(client: Client, service: ScriptedService) -> None:
    rows = [a_dataset(id=f"ds_{i}", version=i) for i in range(5)]

    def page(request: Request) -> Answer:
        start = int(request.query.get("after", 0))
        after = str(start + 2) if start + 2 < len(rows) else None
        return Answer(200, {"items": rows[start : start + 2], "next": after})

    service.on("GET", "/v1/datasets", page)
    service.on("GET", "/v1/datasets/mnist/versions", page)
    assert [d.version for d in client.datasets.list()] == [0, 1, 2, 3, 4]
    assert [d.version for d in client.datasets.versions("mnist")] == [0, 1, 2, 3, 4]
    assert [r.query.get("after") for r in service.requests_for("GET", "/v1/datasets")] == [None, "2", "4"]


def test_samples_preview_and_delete_ask_for_what_was_named(client: Client, service: ScriptedService) -> None:
    service.on(
        "GET",
        "/v1/datasets/d/samples",
        Answer(200, {"split": "test", "items": [{"index": 4, "values": {"x": 1}}]}),
    )
    service.on("GET", "/v1/datasets/d/preview.png", Answer(200, PNG, {"Content-Type": "image/png"}))
    service.on("DELETE", "/v1/datasets/d/versions/2", Answer(204))
    assert client.datasets.samples("d", "test", 1).items[0].values == {"x": 1}
    assert client.datasets.preview("d", rows=2, cols=4) == PNG
    client.datasets.delete("d", 2)
    assert [dict(r.query) for r in service.requests] == [
        {"split": "test", "limit": "1"},
        {"rows": "2", "cols": "4"},
        {},
    ]
