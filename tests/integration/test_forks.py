"""A fork as its worker sees it, with a real child: what it begins with, and what is kept for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update

from core.db.models import Checkpoint, Job
from tests import house as homes
from workers import children
from workers.finish import _collect
from workers.house import House
from workers.tasks import train_one

#: So small that the weights of a fork stay those that it began with.
STANDING = {"type": "SGD", "lr": 1e-30}
#: Of the digits' net in `tests.house`: its two Linears.
LEARNED = ("1.weight", "1.bias", "5.weight", "5.bias")


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    children.preload()


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(database_url, tmp_path / "home")
    yield opened
    opened.database.close()


@pytest.fixture
def manifest(house: House, tmp_path: Path) -> homes.Manifest:
    return homes.add_digits(house, tmp_path)


def fork(house: House, manifest: homes.Manifest, job_id: str, start: Checkpoint, **trainer: Any) -> str:
    child = homes.add_job(house, manifest, **trainer)
    values = {"forked_from": job_id, "start_checkpoint_id": start.id}
    with house.database.write() as session:
        session.execute(update(Job).where(Job.id == child).values(**values))
        session.commit()
    return child


def weights(house: House, row: Checkpoint) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(house.storage.fetch(row.weights_key), weights_only=True)
    return found


def test_a_fork_begins_with_the_weights_of_its_checkpoint_and_says_so(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=2)
    assert train_one(house)
    last, *_ = homes.read_checkpoints(house, job_id)
    child = fork(house, manifest, job_id, last, epochs=1, seed=5, optimizer=STANDING)
    assert train_one(house)
    job = homes.read_job(house, child)
    assert (job.state, job.progress["step"]) == ("succeeded", 14)  # 1,350 rows, 100 a batch: from step 0
    began, ended = weights(house, last), weights(house, homes.read_checkpoints(house, child)[0])
    for name in LEARNED:
        assert torch.equal(began[name], ended[name])
    _, version = homes.read_versions(house)
    assert version.lineage["forked_from"] == {"job": job_id, "checkpoint": last.id}


def test_without_a_checkpoint_the_same_job_begins_elsewhere(house: House, manifest: homes.Manifest) -> None:
    """That the test above can fail."""
    job_id = homes.add_job(house, manifest, epochs=2)
    assert train_one(house)
    anew = homes.add_job(house, manifest, epochs=1, seed=5, optimizer=STANDING)
    assert train_one(house)
    began, ended = (weights(house, homes.read_checkpoints(house, one)[0]) for one in (job_id, anew))
    assert not any(torch.equal(began[name], ended[name]) for name in LEARNED)
    assert [version.lineage["forked_from"] for version in homes.read_versions(house)] == [None, None]


def test_what_a_fork_begins_with_is_not_collected_until_it_has_ended(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=4, checkpoint={"keep": 9})
    assert train_one(house)
    kept = homes.read_checkpoints(house, job_id)
    oldest = next(row for row in reversed(kept) if not row.is_best)
    child = fork(house, manifest, job_id, oldest, epochs=1)

    def collect() -> list[str]:
        with house.database.write() as session:
            _collect(session, job_id, 1)
            session.commit()
        return [row.id for row in homes.read_checkpoints(house, job_id)]

    assert len(kept) == 4
    left = collect()
    assert len(left) < 4
    assert oldest.id in left
    assert train_one(house)
    assert homes.read_job(house, child).state == "succeeded"
    assert oldest.id not in collect()


def test_a_fork_whose_checkpoint_is_damaged_fails_and_says_which(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=1)
    assert train_one(house)
    (start,) = homes.read_checkpoints(house, job_id)
    with Path(house.storage.fetch(start.weights_key)).open("r+b") as file:
        file.seek(200)
        file.write(b"\0\1\2\3")
    child = fork(house, manifest, job_id, start, epochs=1)
    assert train_one(house)
    job = homes.read_job(house, child)
    assert (job.state, job.error and job.error["code"]) == ("failed", "weights_mismatch")
    assert start.id in str(job.error)
