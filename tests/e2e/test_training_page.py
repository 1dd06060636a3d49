"""What `docs/training.md` says to a service by our client runs as written, on a job that has ended."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modelyard import Client
from tests.jobs_page import said_to_a_service

BLOCKS = said_to_a_service("training.md")

SPEC: dict[str, Any] = {
    "name": "page-mlp",
    "dataset": "page-digits",
    "model": {"type": "Sequential", "layers": [{"type": "Flatten"}, {"type": "Linear", "out_features": 10}]},
    "trainer": {"epochs": 2, "log_every_steps": 5, "device": "cpu"},
}


def test_the_python_of_the_page_watches_a_job_and_looks_through_it(
    client: Client, digits_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.datasets.push("page-digits", digits_zip)
    job = client.jobs.submit(SPEC)
    monkeypatch.chdir(tmp_path)
    said: dict[str, Any] = {"client": client, "job": job}
    job.wait(120)
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, "docs/training.md", "exec"), said)
    assert [step for step, _ in said["losses"]][:2] == [5, 10]
    with zipfile.ZipFile("board.zip") as board:
        assert any("tfevents" in name for name in board.namelist())
    with zipfile.ZipFile(io.BytesIO(said["archive"])) as archive:
        assert "train.py" in archive.namelist()
    assert said["suspect"].label in client.datasets.get("page-digits").classes
