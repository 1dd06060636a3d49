"""Labels that were made wrong on purpose are found again by the net that was trained on them."""

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from deploy.embed import RunningStack
from modelyard import Client
from modelyard.errors import Conflict
from modelyard.specs import Job
from tests.make_data import csv_bytes
from tests.needs import needs_file

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MNIST = DATA / "mnist-12k-csv-png.zip"
#: Of the 10,000 training digits 3 % get another label.
FLIPPED = 300


def with_wrong_labels(archive: Path, target: Path) -> set[int]:
    """The same archive with the labels of some training rows changed; their places in `train.csv`."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        header, *rows = csv.reader(io.TextIOWrapper(old.open("train.csv"), "utf-8"))
        places = rng.choice(len(rows), FLIPPED, replace=False)
        for place, turn in zip(places, rng.integers(1, 10, FLIPPED), strict=True):
            rows[place][1] = str((int(rows[place][1]) + int(turn)) % 10)
        for name in old.namelist():
            if name == "train.csv":
                new.writestr(name, "\n".join(",".join(row) for row in [header, *rows]) + "\n")
            else:
                new.writestr(name, old.read(name))
    return set(places.tolist())


@pytest.fixture(scope="module")
def trained(client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, set[int]]:
    path = tmp_path_factory.mktemp("wrong") / "mnist.zip"
    wrong = with_wrong_labels(MNIST, path)
    client.datasets.push("mnist-wrong", path)
    spec: dict[str, Any] = {
        "name": "doubter",
        "dataset": "mnist-wrong",
        "model": {
            "type": "Sequential",
            "layers": [
                {"type": "Flatten"},
                {"type": "Linear", "out_features": 512},
                {"type": "ReLU"},
                {"type": "Linear", "out_features": 512},
                {"type": "ReLU"},
                {"type": "Linear", "out_features": 10},
            ],
        },
        "optimizer": {"type": "SGD", "lr": 0.1},
        "trainer": {"epochs": 5, "batch_size": 64, "seed": 0},
    }
    return client.jobs.submit(spec).wait(timeout_s=300), wrong


@needs_file(MNIST)
def test_wrong_labels_are_found_among_the_first(client: Client, trained: tuple[Job, set[int]]) -> None:
    job, wrong = trained

    found = client.jobs.suspects(job.id, limit=300)

    assert found.num_scored == 10_000
    hits = [item.index in wrong for item in found.items]
    precision = {k: sum(hits[:k]) / k for k in (50, 100, 200, 300)}
    print(f"precision@k: {precision}; {found.num_likely} are likely wrong")
    assert precision[50] >= 0.9
    assert precision[300] >= 0.7
    assert 200 <= (found.num_likely or 0) <= 700
    assert any(item.is_validation for item in found.items)


@needs_file(MNIST)
def test_a_suspect_is_the_sample_of_its_index(client: Client, trained: tuple[Job, set[int]]) -> None:
    job, wrong = trained
    early = next(item for item in client.jobs.suspects(job.id, limit=500).items if item.index < 100)

    sample = client.datasets.samples("mnist-wrong", split="train", limit=100).items[early.index]

    assert sample.values["label"] == early.label
    assert early.predicted != early.label or early.index not in wrong


@needs_file(MNIST)
def test_a_picture_shows_as_many_suspects_as_asked(
    client: Client, http: httpx2.Client, trained: tuple[Job, set[int]]
) -> None:
    job, _ = trained

    reply = http.get(f"/v1/jobs/{job.id}/suspects.png?rows=2&cols=3")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.content))
    assert picture.width == 3 * 100 + 4
    assert picture.height == 2 * 116 + 4
    assert client.jobs.suspects_png(job.id)[:4] == b"\x89PNG"


def test_a_regression_lists_the_greatest_losses_and_has_no_picture(
    client: Client, stack: RunningStack
) -> None:
    """y = 2 a, but for one row: its squared error is the greatest by far."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(60)
    y = 2 * a
    y[17] += 50
    path = Path(stack.home) / "line.csv"
    path.write_bytes(csv_bytes([["a", "y"], *np.stack([a, y], axis=1).tolist()]))
    client.datasets.push("line", path)
    spec = {
        "name": "line",
        "dataset": "line",
        "model": {"type": "Linear", "out_features": 1},
        "target": "y",
        "loss": {"type": "HuberLoss"},
        "optimizer": {"type": "SGD", "lr": 0.1},
        "trainer": {"epochs": 20, "batch_size": 16},
    }
    job = client.jobs.submit(spec).wait(timeout_s=100)

    found = client.jobs.suspects(job.id)

    assert found.items[0].index == 17
    assert found.items[0].label == pytest.approx(y[17], rel=1e-5)
    assert found.items[0].predicted == pytest.approx(2 * a[17], abs=1.0)
    assert found.items[0].loss > 10 * found.items[1].loss
    assert found.num_likely is None
    with pytest.raises(Conflict, match="no classes"):
        client.jobs.suspects_png(job.id)


def test_a_job_that_has_not_succeeded_has_no_suspects(client: Client) -> None:
    spec = {
        "name": "endless",
        "dataset": "line",
        "model": {"type": "Linear", "out_features": 1},
        "target": "y",
        "trainer": {"epochs": 1_000_000},
    }
    job = client.jobs.submit(spec)

    with pytest.raises(Conflict, match="succeeded"):
        client.jobs.suspects(job.id)

    job.cancel()
