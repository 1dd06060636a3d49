"""What `docs/predicting.md` shows runs as written, by curl, in a shell and in Python, on two small models."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.embed import RunningStack
from examples.digits.make_digits import pictures
from modelyard import Client
from tests.jobs_page import said_in_a_shell, said_to_a_service
from tests.make_data import csv_bytes

PAGE = "predicting.md"
ROWS = [
    ["area", "city", "price"],
    *([60 + n, ["bern", "oslo"][n % 2], "dear" if n % 3 else "cheap"] for n in range(60)),
]


@pytest.fixture(scope="module")
def models(client: Client, digits_zip: Path) -> None:
    """`pictures` and `houses`, as the page has them."""
    client.datasets.push("page-pictures", digits_zip)
    client.datasets.push("page-houses", csv_bytes([*ROWS, ["", "bern", "dear"]]), format="table")
    flat = [{"type": "Flatten"}, {"type": "Linear", "out_features": 10}]
    jobs = [
        {"name": "pictures", "dataset": "page-pictures", "model": {"type": "Sequential", "layers": flat}},
        {"name": "houses", "dataset": "page-houses", "model": {"type": "Linear", "out_features": 2}},
    ]
    for job in [client.jobs.submit(spec | {"trainer": {"epochs": 2, "device": "cpu"}}) for spec in jobs]:
        job.wait(120)


@pytest.fixture
def folder(models: None, tmp_path: Path) -> Path:
    for name, picture in zip(("a.png", "b.png"), pictures("test"), strict=False):
        (tmp_path / name).write_bytes(picture.png)
    (tmp_path / "rows.csv").write_bytes(csv_bytes([["city", "area"], ["bern", 120], ["oslo", ""]]))
    return tmp_path


def test_the_python_and_the_shell_of_the_page_run_as_written(
    stack: RunningStack, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said: dict[str, Any] = {"client": client}
    for block in said_to_a_service(PAGE):
        exec(compile(block, f"docs/{PAGE}", "exec"), said)
    assert len(said["several"].predictions) == 2
    assert Path("heat.png").read_bytes().startswith(b"\x89PNG")
    environment = {
        **os.environ,
        "URL": stack.url,
        "KEY": f"Authorization: Bearer {stack.key}",
        "MODELYARD_URL": stack.url,
        "MODELYARD_KEY": stack.key,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    commands = "\n".join(said_in_a_shell(PAGE)).replace("curl -s", "curl --fail-with-body -s -w '\\n'")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [len(answer["predictions"]) for answer in answers] == [2, 1, 2, 2, 2, 1]
    assert all("error" not in one for answer in answers for one in answer["predictions"])
    by_json, alone, of_form, by_csv, by_arrow, explained = (answer["predictions"] for answer in answers)
    assert [one["label"] for one in by_json] == [one["label"] for one in by_csv]
    assert by_csv == by_arrow
    assert alone[0]["label"] == of_form[0]["label"] == explained[0]["label"]
    assert Path("a.png.saliency.png").exists()
