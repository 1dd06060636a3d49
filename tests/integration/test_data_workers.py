"""Data workers: the numbers of one process, whatever their count, and none left when the training is gone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
