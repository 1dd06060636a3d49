"""A disk without room while a checkpoint is written or stored: the last good one stays, it is tried again,
and the job fails only where that does not help. On a small file system of its own."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import exactness, injected
from tests import house as homes
from tests.needs import missing
from workers import storing
from workers.house import House
from workers.tasks import train_one

TRAINER = {"epochs": 4, "checkpoint": {"every_epochs": 2}}
#: Some 30 kB a checkpoint; more than the digits and their packed cache take.
SIZE_KIB = 4096


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("small")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        missing("no mount")
    if done.returncode != 0:
        missing(f"a small file system cannot be mounted here: {done.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["scratch", "storage"])
def tight(
    preloaded: None,
    request: pytest.FixtureRequest,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[House]:
    """One whose scratch, or whose storage, is on the small file system."""
    monkeypatch.setattr(storing, "PAUSE_S", 0.2)
    home, storage = (small / tmp_path.name, tmp_path) if request.param == "scratch" else (tmp_path, small)
    home.mkdir(exist_ok=True)
    house = homes.open_house(
        f"sqlite:///{tmp_path / 'modelyard.db'}",
        home,
        storage_url=f"file://{storage / ('storage' + tmp_path.name)}",
        retry_backoff_s=0,
    )
    yield house
    house.database.close()


def fill(small: Path) -> Path:
    """All of what is free."""
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass
    return filler


def test_enospc_with_room_that_comes_back_costs_an_event(tight: House, small: Path, tmp_path: Path) -> None:
    manifest = homes.add_digits(tight, tmp_path)
    unbroken = exactness.queue(tight, manifest, TRAINER)
    assert train_one(tight)
    job_id = exactness.queue(tight, manifest, TRAINER)
    injected.inject(tight, "workers.running:Running._save", "wait_aside", call=2)
    thread = train_in_thread(tight)
    injected.wait_at(tight)
    filler = fill(small)
    injected.let_go(tight)
    wait_for_shortage(tight, job_id)
    filler.unlink()
    thread.join(60)
    assert homes.read_job(tight, job_id).state == "succeeded"
    assert exactness.outcome(tight, job_id) == exactness.outcome(tight, unbroken)
    told = [event for event in homes.read_events(tight, job_id) if event.type == "storage_full"]
    assert 1 <= len(told) <= 3
    assert told[0].data["step"] == 56
    assert told[0].data["needed_bytes"] > 20_000
    assert_nothing_left(tight, small)


def test_enospc_three_times_in_a_row_fails_the_job_and_keeps_its_last_checkpoint(
    tight: House, small: Path, tmp_path: Path
) -> None:
    manifest = homes.add_digits(tight, tmp_path)
    job_id = exactness.queue(tight, manifest, TRAINER)
    injected.inject(tight, "workers.running:Running._save", "wait_aside", call=2)
    thread = train_in_thread(tight)
    injected.wait_at(tight)
    filler = fill(small)
    injected.let_go(tight)
    thread.join(60)
    filler.unlink()
    job = homes.read_job(tight, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "storage_full"
    assert "step 56" in job.error["message"]
    events = homes.read_events(tight, job_id)
    assert len([event for event in events if event.type == "storage_full"]) == 3
    (kept,) = homes.read_checkpoints(tight, job_id)
    assert kept.step == 28
    assert tight.storage.fetch(kept.weights_key).stat().st_size == kept.weights_bytes
    assert_nothing_left(tight, small)


def assert_nothing_left(house: House, small: Path) -> None:
    """No half of a file, and no file without a row."""
    assert not list((house.settings.scratch() / "jobs").glob("*/*"))
    assert not [path for path in small.rglob(".*") if path.is_file()]
    stored = sorted(key for key in house.storage.list("jobs") if key.endswith(".pt"))
    rows = [row for job in homes.read_jobs(house) for row in homes.read_checkpoints(house, job.id)]
    assert stored == sorted(key for row in rows for key in (row.weights_key, row.state_key))


def train_in_thread(house: House) -> threading.Thread:
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    return thread


def wait_for_shortage(house: House, job_id: str) -> None:
    injected.until(
        lambda: any(event.type == "storage_full" for event in homes.read_events(house, job_id)),
        "a shortage was told",
    )
