"""A backup of a training under way is as good as the training: restored elsewhere, it ends the same."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import migrations
from backups.backup import back_up
from backups.progress import Progress
from backups.restore import REASON, restore
from core.settings import Settings
from tests import exactness, injected
from tests import house as homes
from workers.house import House
from workers.tasks import train_one

STEPPED = "workers.trainer:update"
TRAINER = {"epochs": 4, "checkpoint": {"every_steps": 3, "monitor": "val_loss"}}


@pytest.fixture
def databases(postgresql_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where it trains and where it is restored, by kind."""
    name = f"backup_{time.monotonic_ns()}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield {
        "sqlite": f"sqlite:///{tmp_path / 'modelyard.db'}",
        "postgresql": postgresql_url.replace("/postgres?", f"/{name}?"),
    }
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize(("here", "there"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_training_that_was_backed_up_while_it_ran_ends_elsewhere_as_the_unbroken_one(
    databases: dict[str, str], tmp_path: Path, here: str, there: str
) -> None:
    migrations.upgrade(databases[here])
    house = House(Settings(home=tmp_path / "here", database_url=databases[here]))
    (tmp_path / "digits").mkdir()
    manifest = homes.add_digits(house, tmp_path / "digits")
    expected_of = exactness.queue(house, manifest, TRAINER)
    assert train_one(house)
    job_id = exactness.queue(house, manifest, TRAINER)
    injected.inject(house, STEPPED, "wait_aside", call=20)
    training = threading.Thread(target=train_one, args=(house,))
    training.start()
    injected.wait_at(house)
    injected.until(lambda: bool(homes.read_checkpoints(house, job_id)), "it has a checkpoint")
    with Progress() as progress:
        back_up(house.settings, tmp_path / "all.zip", progress, with_files=True, allow_missing=False)
    injected.let_go(house)
    training.join(60)
    assert homes.read_job(house, job_id).state == "succeeded"
    expected = exactness.outcome(house, expected_of)
    house.database.close()

    settings = Settings(home=tmp_path / "there", database_url=databases[there])
    with Progress() as progress:
        assert restore(settings, tmp_path / "all.zip", progress, is_forced=False).num_requeued == 1
    restored = House(settings)
    job = homes.read_job(restored, job_id)
    assert (job.state, job.losses, job.transitions[-1]["reason"]) == ("queued", 0, REASON)
    resumed_from = homes.read_checkpoints(restored, job_id)[0].step
    assert 0 < resumed_from <= 20
    assert train_one(restored)
    assert homes.read_job(restored, job_id).attempt == 2
    assert exactness.outcome(restored, job_id) == expected
    restored.database.close()
