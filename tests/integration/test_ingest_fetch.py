"""Datasets that a worker fetches: torchvision's own classes against a mirror on loopback with tiny files."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torch_datasets

from core.data.arrow import open_table
from core.data.manifest import Manifest
from core.data.preview import read_rows
from core.db.models import Dataset, utc_now
from core.settings import Settings
from modelyard import Client, errors
from tests import house as homes
from tests import mirror as mirrors
from tests.integration.test_ingest_process import ingested
from tests.make_data import image_bytes
from tests.mirror import Mirror, running_mirror
from tests.running_service import RunningService, run_service
from workers.fetch import Fetched
from workers.house import House
from workers.orphans import EXIT_ORPHANED
from workers.tasks import ingest_one


@pytest.fixture(scope="module")
def mirror() -> Iterator[Mirror]:
    files = [
        mirrors.fashion_mnist(), mirrors.emnist_letters(), mirrors.qmnist(), mirrors.cifar10(),
        mirrors.usps(), mirrors.eurosat(), mirrors.gtsrb(),
    ]  # fmt: skip
    with running_mirror({name: data for some in files for name, data in some.items()}) as running:
        yield running


def run_fetch(url: str | None, out_dir: Path, dataset: str, max_bytes: int = 10**9, **options: Any) -> int:
    source = {"type": "torchvision", "dataset": dataset, "options": options}
    command = [sys.executable, "-m", "workers.fetch", json.dumps(source), str(out_dir)]
    command += ["--max-bytes", str(max_bytes), "--min-free-bytes", "0"]
    command += ["--mirror", url] if url is not None else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def fetched(mirror: Mirror, tmp_path: Path, dataset: str, **options: Any) -> tuple[Manifest, Path]:
    """What the fetch made, read by the ordinary ingest."""
    out = tmp_path / "fetched"
    assert run_fetch(mirror.url, out, dataset, **options) == 0, (out / "problem.json").read_text()
    told = msgspec.json.decode((out / "fetched.json").read_bytes(), type=Fetched)
    assert sorted(path.name for path in out.iterdir()) == sorted(["fetched.json", told.filename])
    data = (out / told.filename).read_bytes()
    assert told.bytes == len(data)
    return ingested(tmp_path, data, told.filename, format=told.format, **told.options)


def columns(manifest: Manifest, arrow: Path, split: str) -> tuple[list[Any], list[Any]]:
    rows = manifest.rows_of(split)
    table = open_table(arrow).slice(rows.start, len(rows))
    return table["x"].to_pylist(), table["y"].to_pylist()


def test_cifar10_is_what_its_files_hold_red_plane_first(mirror: Mirror, tmp_path: Path) -> None:
    manifest, arrow = fetched(mirror, tmp_path, "CIFAR10")
    assert manifest.splits == {"train": 50, "test": 10}
    assert manifest.features["x"].shape == [3, 32, 32]
    assert manifest.classes is not None
    assert manifest.classes[:3] == ["airplane", "automobile", "bird"]
    rows, labels = columns(manifest, arrow, "train")
    first = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)  # as the mirror made it
    assert rows[:10] == first.tolist()
    assert labels[:12] == [*range(10), 0, 1]


def test_letters_of_emnist_have_26_classes_and_not_the_empty_one(mirror: Mirror, tmp_path: Path) -> None:
    manifest, arrow = fetched(mirror, tmp_path, "EMNIST", split="letters")
    assert manifest.classes == list("abcdefghijklmnopqrstuvwxyz")
    assert columns(manifest, arrow, "test")[1] == list(range(26))


def test_first_of_qmnists_eight_numbers_is_the_class(mirror: Mirror, tmp_path: Path) -> None:
    manifest, arrow = fetched(mirror, tmp_path, "QMNIST")
    assert manifest.splits == {"train": 20, "test": 10}
    assert columns(manifest, arrow, "train")[1] == [*range(10), *range(10)]


def test_usps_of_one_split_each_is_read_by_its_class(mirror: Mirror, tmp_path: Path) -> None:
    manifest, _ = fetched(mirror, tmp_path, "USPS")
    assert manifest.splits == {"train": 10, "test": 10}
    assert manifest.features["x"].shape == [16, 16]
    assert manifest.classes == [str(digit) for digit in range(10)]


def test_files_stay_as_they_are_but_for_those_with_alpha(mirror: Mirror, tmp_path: Path) -> None:
    manifest, arrow = fetched(mirror, tmp_path, "EuroSAT")
    assert (manifest.format, manifest.splits) == ("image_csv", {"train": 7})
    assert manifest.classes == ["Forest", "River"]
    assert manifest.class_counts == {"train": [3, 4]}
    images = open_table(arrow)["image"].to_pylist()
    jpegs = [image_bytes(number, mode="RGB", format="JPEG") for number in range(3)]
    assert images[:6] == jpegs * 2
    with_alpha = Image.open(io.BytesIO(image_bytes(9, mode="RGBA")))
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(images[6]))), np.asarray(with_alpha.convert("RGB"))
    )


def test_pixmaps_become_pictures_of_the_same_pixels(mirror: Mirror, tmp_path: Path) -> None:
    manifest, arrow = fetched(mirror, tmp_path, "GTSRB")
    assert manifest.splits == {"train": 4, "test": 2}
    assert manifest.classes == ["0", "1"]
    expected = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8).transpose(2, 0, 1)
    (row, *_) = read_rows(arrow, manifest, "test", 2)[1:]
    assert row == {"image": expected.tolist(), "label": "1"}


@pytest.mark.parametrize(
    ("dataset", "how", "words"),
    [
        ("SVHN", {}, ["/SVHN/train_32x32.mat could not be fetched (404 Not Found)"]),
        ("MNIST", {}, ["/MNIST/train-images-idx3-ubyte.gz could not be fetched (404"]),
        ("CIFAR10", {"max_bytes": 100_000}, ["larger than the 100000 bytes", "MODELYARD_MAX_UPLOAD_BYTES"]),
    ],
)
def test_failure_names_the_file_and_leaves_nothing(
    mirror: Mirror, tmp_path: Path, dataset: str, how: dict[str, int], words: list[str]
) -> None:
    out = tmp_path / "out"
    assert run_fetch(mirror.url, out, dataset, **how) == 1
    assert [path.name for path in out.iterdir()] == ["problem.json"]
    problem = json.loads((out / "problem.json").read_bytes())
    for word in words:
        assert word in problem["detail"]


def test_file_that_comes_half_is_not_taken_for_the_whole(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut.add("USPS/usps.bz2")
    try:
        assert run_fetch(mirror.url, tmp_path / "out", "USPS") == 1
    finally:
        mirror.cut.clear()
    assert "usps.bz2 could not be fetched" in (tmp_path / "out" / "problem.json").read_text()


def test_nobody_at_the_mirror_is_said_with_the_setting(tmp_path: Path) -> None:
    assert run_fetch("http://127.0.0.1:1", tmp_path / "out", "FashionMNIST") == 1
    detail = json.loads((tmp_path / "out" / "problem.json").read_bytes())["detail"]
    assert "http://127.0.0.1:1/FashionMNIST/train-images-idx3-ubyte.gz could not be fetched" in detail
    assert "MODELYARD_DATASET_MIRROR" in detail


def test_without_a_mirror_torchvisions_md5_sums_are_compared(mirror: Mirror, tmp_path: Path) -> None:
    """The class's own site is put onto the loopback server, as its own attribute says it."""
    code = f"""
import pathlib, sys, torchvision.datasets as d
d.FashionMNIST.mirrors = ["{mirror.url}/FashionMNIST/"]
from core.errors import ModelyardError
from modelyard.specs import TorchvisionSource
from workers.fetch.download import Downloads
from workers.fetch.run import fetch
try:
    out = pathlib.Path({str(tmp_path)!r})
    fetch(TorchvisionSource("FashionMNIST"), out / "root", out, Downloads("FashionMNIST", None, 10**9, 0))
except ModelyardError as error:
    print(error.code, error.detail)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.startswith("fetch_failed"), done.stderr
    assert "/FashionMNIST/train-images-idx3-ubyte.gz is not what torchvision knows" in done.stdout


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningService]:
    home = tmp_path / "home"
    with run_service(f"sqlite:///{tmp_path / 'm.db'}", home, lease_s=1.0, sweep_s=0.2, beat_s=0.2) as service:
        yield service


def worker_settings(service: RunningService, mirror: Mirror) -> Settings:
    return service.settings.model_copy(update={"pool": "data", "dataset_mirror": mirror.url})


def test_source_named_over_http_is_fetched_by_the_worker_and_ready(
    running: RunningService, mirror: Mirror, tmp_path: Path
) -> None:
    house = House(worker_settings(running, mirror))
    with running.owner() as me, Client(running.url, me.key) as client:
        begun = client.datasets.fetch("fashion", torchvision="FashionMNIST", wait=False)
        again = client.datasets.fetch("fashion", torchvision="FashionMNIST", wait=False)
        assert (begun.state, begun.bytes, begun.sha256) == ("processing", 0, "")
        assert again.version == begun.version == 1
        assert ingest_one(house)
        ready = client.datasets.wait("fashion", 1)
        assert client.datasets.fetch("fashion", torchvision="FashionMNIST").version == 1
    house.database.close()
    assert ready.source == {"type": "torchvision", "dataset": "FashionMNIST", "options": {}}
    assert (ready.format, ready.splits) == ("arrays", {"train": 40, "test": 20})
    assert ready.classes == torch_datasets.FashionMNIST.classes
    assert ready.bytes > 60 * 28 * 28
    assert len(ready.sha256) == 64
    assert not list(house.settings.scratch().glob("ingest/*/*"))


def test_source_that_cannot_be_is_refused_before_anything_is_queued(running: RunningService) -> None:
    with running.owner() as me:
        for source, pointer in (
            ({"type": "torchvision", "dataset": "FashionMinst"}, "/source/dataset"),
            ({"type": "torchvision", "dataset": "MNIST", "options": {"url": "x"}}, "/source/options/url"),
            ({"type": "http", "url": "http://x"}, "/source/type"),
            ({"type": "torchvision"}, "/source"),
        ):
            reply = me.client.post("/v1/datasets", json={"name": "d", "source": source})
            assert reply.status_code == 422, reply.text
            assert reply.json()["errors"][0]["pointer"] == pointer
        assert me.client.post("/v1/datasets", json={"name": "No Name", "source": {}}).status_code == 422
        assert me.client.get("/v1/datasets").json()["items"] == []


def test_key_of_the_same_source_gives_the_first_answer(running: RunningService) -> None:
    body = {"name": "d", "source": {"type": "torchvision", "dataset": "MNIST"}}
    with running.owner() as me:
        replies = [
            me.client.post("/v1/datasets", json={**body, "name": name}, headers={"Idempotency-Key": "k"})
            for name in ("d", "d", "other")
        ]
    assert [reply.status_code for reply in replies] == [202, 202, 422]
    assert replies[1].headers["idempotency-replayed"] == "true"
    assert replies[1].json()["id"] == replies[0].json()["id"]


def test_fetch_that_fails_says_so_and_is_tried_again_when_asked_again(
    running: RunningService, mirror: Mirror
) -> None:
    house = House(worker_settings(running, mirror))
    with running.owner() as me, Client(running.url, me.key) as client:
        client.datasets.fetch("numbers", torchvision="SVHN", wait=False)
        assert ingest_one(house)
        with pytest.raises(errors.DatasetFailed, match=r"train_32x32\.mat could not be fetched"):
            client.datasets.wait("numbers", 1)
        again = client.datasets.fetch("numbers", torchvision="SVHN", wait=False)
    house.database.close()
    assert again.version == 2


def test_killed_worker_takes_its_fetch_with_it_and_another_fetches_again(
    running: RunningService, mirror: Mirror, tmp_path: Path
) -> None:
    settings = worker_settings(running, mirror)
    code = (
        "import sys; from core.settings import Settings; from workers.house import House; "
        "from workers.tasks import ingest_one; ingest_one(House(Settings.model_validate_json(sys.argv[1])))"
    )
    mirror.hold.clear()
    mirror.asked.clear()
    try:
        with running.owner() as me:
            body = {"name": "f", "source": {"type": "torchvision", "dataset": "FashionMNIST"}}
            dataset_id = me.client.post("/v1/datasets", json=body).json()["id"]
            with subprocess.Popen([sys.executable, "-c", code, settings.model_dump_json()]) as worker:
                until(lambda: mirror.asked != [])
                (child,) = processes_with(dataset_id)
                worker.send_signal(signal.SIGKILL)
            until(lambda: child not in processes_with(dataset_id))
            until(lambda: state_of(me.database, dataset_id) == ("queued", 1))
            mirror.hold.set()
            house = House(settings)
            assert ingest_one(house)
            house.database.close()
            assert state_of(me.database, dataset_id) == ("ready", 2)
    finally:
        mirror.hold.set()


def until(is_so: Any, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_with(word: str) -> list[int]:
    """Fetches whose arguments hold `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"workers.fetch" in arguments and any(word.encode() in argument for argument in arguments):
            found.append(int(path.parent.name))
    return found


def state_of(database: Any, dataset_id: str) -> tuple[str, int]:
    with database.read() as session:
        row = session.get_one(Dataset, dataset_id)
        return row.state, row.fence


def test_fetched_bytes_are_not_fetched_twice(database_url: str, mirror: Mirror, tmp_path: Path) -> None:
    """As when a worker is lost between the fetch and the reading."""
    house = homes.open_house(
        database_url, tmp_path / "home", pool="data", dataset_mirror=mirror.url, min_free_bytes=0
    )
    with house.database.write() as session:
        source = {"type": "torchvision", "dataset": "FashionMNIST", "options": {}}
        session.add(
            Dataset(
                id="ds_f", owner=homes.OWNER, name="f", version=1, state="queued", format="auto", options={},
                filename="FashionMNIST", source=source, source_key="", bytes=0, sha256="",
                created_at=utc_now(),
            )
        )  # fmt: skip
        session.commit()
    assert ingest_one(house)
    with house.database.write() as session:
        row = session.get_one(Dataset, "ds_f")
        assert (row.state, row.source_key) == ("ready", "datasets/ds_f/source")
        row.state = "queued"
        session.commit()
    mirror.asked.clear()
    assert ingest_one(house)
    assert state_of(house.database, "ds_f") == ("ready", 2)
    assert mirror.asked == []
    house.database.close()


def test_process_ends_with_its_standard_input(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\n")
    command = [sys.executable, "-m", "workers.ingest", str(tmp_path / "rows.csv"), str(tmp_path / "out")]
    command += ["--memory-bytes", str(2 * 1024**3), "--cpu-seconds", "60", "--end-with-parent"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == EXIT_ORPHANED
    reader, writer = os.pipe()
    try:
        done = subprocess.run(command, stdin=reader, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0
