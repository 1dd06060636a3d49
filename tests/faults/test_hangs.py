"""A training that hangs is found, says where it stands, and is ended; one that is only slow is left alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.data.manifest import Manifest
from tests import exactness, injected
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

STALL_S = 5.0


@pytest.fixture(scope="module")
def house(preloaded: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("impatient")
    opened = homes.open_house(f"sqlite:///{folder / 'modelyard.db'}", folder / "home", stall_s=STALL_S)
    yield opened
    opened.database.close()


@pytest.mark.parametrize("place", ["workers.trainer:update", "workers.attempt:Attempt.open_data"])
def test_hung_step_fails_as_stalled_and_says_where_it_stood(
    house: House, manifest: Manifest, place: str
) -> None:
    job_id = exactness.queue(house, manifest, {"epochs": 4})
    injected.inject(house, place, "hang_with_words")
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "stalled"
    assert "MODELYARD_STALL_S" in job.error["hint"]
    stacks = Path(house.settings.home, "stderr").read_text()
    assert "hang_with_words" in stacks
    assert "in fit" in stacks or "in begin" in stacks
    assert train_one(house) is False


def test_an_evaluation_longer_than_the_limit_is_no_hang(house: House, manifest: Manifest) -> None:
    job_id = exactness.queue(house, manifest, {"epochs": 1})
    injected.inject(house, "workers.trainer:evaluate", "long_evaluation")
    assert train_one(house)
    assert homes.read_job(house, job_id).state == "succeeded"
