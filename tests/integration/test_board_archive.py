"""The event files of jobs that a worker runs: in storage at the end, wherever the attempts ran."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core import boards
from tests import house as homes
from workers import children
from workers.house import House
from workers.tasks import train_one


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    children.preload()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(f"sqlite:///{tmp_path / 'db'}", tmp_path / "home", retry_backoff_s=0)
    yield opened
    opened.database.close()


@pytest.fixture
def manifest(house: House, tmp_path: Path) -> homes.Manifest:
    return homes.add_digits(house, tmp_path)


def steps_in(archive: Path, folder: Path, tag: str) -> list[int]:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)  # our own
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [one.step for one in reader.Scalars(tag)]


def kill_child_after_first_checkpoint(house: House, job_id: str) -> None:
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    deadline = time.monotonic() + 60
    while not homes.read_checkpoints(house, job_id):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    thread.join()
    assert homes.read_job(house, job_id).state == "queued"


def test_a_job_that_succeeded_has_one_archive_with_all_of_it(
    house: House, manifest: homes.Manifest, tmp_path: Path
) -> None:
    job_id = homes.add_job(house, manifest, epochs=3, log_every_steps=7)
    train_one(house)
    assert homes.read_job(house, job_id).state == "succeeded"
    (key,) = boards.archives(house.storage, job_id)
    archive = house.storage.fetch(key)
    assert steps_in(archive, tmp_path / "read", "grad_norm") == [7, 14, 21, 28, 35, 42]
    assert steps_in(archive, tmp_path / "read", "test_accuracy") == [42]
    home = boards.run_folder(house.settings.resolved_home(), "digits", job_id)
    assert (home / "projector_config.pbtxt").is_file()
    assert not list((house.settings.scratch() / "boards").iterdir())


def test_metrics_of_a_job_killed_and_resumed_have_no_gap_and_no_double(
    house: House, manifest: homes.Manifest, tmp_path: Path
) -> None:
    job_id = homes.add_job(house, manifest, epochs=60, log_every_steps=5)
    kill_child_after_first_checkpoint(house, job_id)
    # As on another machine: what the first attempt left in its folder is in storage alone.
    shutil.rmtree(boards.run_folder(house.settings.resolved_home(), "digits", job_id))
    train_one(house)
    assert homes.read_job(house, job_id).attempt == 2
    every_fifth = list(range(5, 60 * 14 + 1, 5))
    rows = homes.read_metrics(house, job_id)
    for name in ("lr", "grad_norm", "samples_per_second", "memory_bytes"):
        assert [row.step for row in rows if row.name == name] == every_fifth
    assert [row.step for row in rows if row.name == "val_loss"] == list(range(14, 60 * 14 + 1, 14))
    (key,) = boards.archives(house.storage, job_id)
    assert steps_in(house.storage.fetch(key), tmp_path / "read", "grad_norm") == every_fifth


def test_a_worker_told_so_writes_no_event_files(manifest: homes.Manifest, house: House) -> None:
    job_id = homes.add_job(house, manifest, epochs=1)
    quiet = homes.open_house(
        house.settings.resolved_database_url(), house.settings.home, tensorboard="off", retry_backoff_s=0
    )
    train_one(quiet)
    quiet.database.close()
    assert homes.read_job(house, job_id).state == "succeeded"
    assert boards.archives(house.storage, job_id) == []
    assert not boards.runs_folder(house.settings.resolved_home()).exists()


def test_what_is_stored_of_a_job_goes_with_it(house: House, manifest: homes.Manifest) -> None:
    job_id = homes.add_job(house, manifest, epochs=1)
    train_one(house)
    folder = boards.run_folder(house.settings.resolved_home(), "digits", job_id)
    boards.forget(house.storage, folder, job_id)
    assert boards.archives(house.storage, job_id) == []
    assert not folder.exists()
