"""Data workers: the numbers of one process, whatever their count, and none left when the training is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from core.nets.plan import Source, check
from tests.attempts import first_order
from tests.photos import write_photos
from workers import children
from workers.children import Child
from workers.messages import EpochEnded, Started

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trial")
    command = [sys.executable, "-m", "tests.data_workers_trial", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    given: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return given


@pytest.mark.parametrize("transforms", ["drawing", "cropping", "both"])
def test_an_epoch_is_the_same_to_the_bit_with_no_one_and_two_workers(
    found: dict[str, Any], transforms: str
) -> None:
    alone, one, two = found[transforms]
    assert alone == one == two
    assert len(set(alone["whole"])) == 7


@pytest.mark.parametrize("transforms", ["drawing", "cropping", "both"])
def test_an_epoch_goes_on_from_a_batch_and_begins_anew_after_one_that_was_left(
    found: dict[str, Any], transforms: str
) -> None:
    for way in found[transforms]:
        assert way["tail"] == way["whole"][3:]
        assert way["after"] == way["whole"]


def test_workers_start_in_milliseconds(found: dict[str, Any]) -> None:
    assert found["start_s"] < 1


def test_workers_that_have_nothing_to_do_end(found: dict[str, Any]) -> None:
    assert found["unused"] == [True, True]


def test_an_error_in_a_worker_is_the_training_s_with_its_traceback(found: dict[str, Any]) -> None:
    name, notes = found["error"]
    assert name == "IndexError"
    assert "in a data worker" in notes
    assert "packed.py" in notes


def test_a_killed_worker_is_named_and_not_waited_for(found: dict[str, Any]) -> None:
    assert "lower trainer.num_workers" in found["killed"]


def test_workers_of_a_killed_training_end_within_seconds(found: dict[str, Any]) -> None:
    assert found["orphans_ended"] is True


def children_of(pid: int | None) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def trained(folder: Path, num_workers: int, **trainer: Any) -> Child:
    """The child of an attempt at photos, in a process of its own as the worker starts it."""
    manifest = write_photos(folder, 40)
    raw = {
        "name": "m",
        "dataset": "d@1",
        "model": {
            "type": "Sequential",
            "layers": [{"type": "Flatten"}, {"type": "Linear", "out_features": 3}],
        },
        "transforms": {
            "train": [{"type": "RandAugment"}, {"type": "RandomResizedCrop", "size": 16}],
            "eval": [{"type": "Resize", "size": [16, 16]}],
        },
        "trainer": {"batch_size": 8, "seed": 3, "device": "cpu", "num_workers": num_workers, **trainer},
    }
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    spec = check(raw, Source("d@1", manifest)).spec
    children.preload()
    return Child(first_order(spec, folder))


def reports_of(child: Child, kind: type[T], count: int) -> list[T]:
    """The first of that kind; nothing is answered."""
    seen: list[Any] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        child.wait(1)
        seen += child.reports()
        found = [report for report in seen if isinstance(report, kind)]
        if len(found) == count:
            return found
        assert child.alive, seen
    raise AssertionError(seen)


def test_an_attempt_trains_with_workers_to_the_loss_that_it_has_without(tmp_path: Path) -> None:
    losses = []
    for num_workers in (0, 2):
        folder = tmp_path / str(num_workers)
        folder.mkdir()
        child = trained(folder, num_workers, epochs=2)
        try:
            ended = reports_of(child, EpochEnded, 2)
            assert len(children_of(child.process.pid)) == num_workers
        finally:
            child.end()
        losses.append([report.metrics for report in ended])
    assert losses[0] == losses[1]


def test_workers_of_a_child_that_was_killed_alone_end_within_seconds(tmp_path: Path) -> None:
    child = trained(tmp_path, 2, epochs=100_000)
    try:
        reports_of(child, Started, 1)
        pid = child.process.pid
        assert pid is not None
        pids = children_of(pid)
        assert len(pids) == 2
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        child.end()
