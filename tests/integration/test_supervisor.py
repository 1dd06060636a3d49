"""One attempt of a job with real children, on both databases: what is written, and what survives a death."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from core.db.models import Checkpoint, Job
from tests import house as homes
from workers import children
from workers.children import Child
from workers.house import House
from workers.ledger import Ledger
from workers.supervisor import Conversation
from workers.tasks import train_one

#: Long enough to be met in the middle, short enough to wait for when a test fails.
LONG = 4000


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    children.preload()


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(database_url, tmp_path / "home", retry_backoff_s=0)
    yield opened
    opened.database.close()


@pytest.fixture
def manifest(house: House, tmp_path: Path) -> homes.Manifest:
    return homes.add_digits(house, tmp_path)


class NoChild(Child):
    """For what an attempt does without its child."""

    def __init__(self) -> None:
        pass


def wait_for(claim: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def train_in_thread(house: House) -> threading.Thread:
    thread = threading.Thread(target=train_one, args=(house,))
    thread.start()
    return thread


def kill_child() -> None:
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)


def final_weights(house: House, job_id: str) -> str:
    return homes.read_checkpoints(house, job_id)[0].weights_sha256


def test_a_job_trains_into_a_ready_version(house: House, manifest: homes.Manifest) -> None:
    job_id = homes.add_job(house, manifest, epochs=8)
    assert train_one(house)
    job = homes.read_job(house, job_id)
    assert (job.state, job.attempt, job.losses, job.error) == ("succeeded", 1, 0, None)
    assert job.registered == {"model": "digits", "version": 1}
    assert job.metrics["test_accuracy"] > 0.8
    (version,) = homes.read_versions(house)
    assert version.state == "ready"
    assert version.lineage["dataset_sha256"] == manifest.data_sha256
    assert not list(house.settings.scratch().glob("jobs/*/*"))


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        ({"epochs": 1}, "every epoch is done"),
        ({"epochs": 2, "max_steps": 3}, "max_steps: 3 steps are done"),
        (
            {"epochs": 9, "early_stopping": {"patience": 1, "min_delta": 100}},
            "early_stopping: val_loss has not got better than",
        ),
    ],
    ids=["epochs", "steps", "patience"],
)
def test_a_job_that_succeeds_says_why_it_ended(
    house: House, manifest: homes.Manifest, trainer: dict[str, Any], reason: str
) -> None:
    job_id = homes.add_job(house, manifest, **trainer)
    train_one(house)
    last = homes.read_job(house, job_id).transitions[-1]
    assert last["state"] == "succeeded"
    assert last["reason"].startswith(reason)


def test_events_are_numbered_without_a_gap_and_metrics_hold_every_epoch(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=3)
    train_one(house)
    events = homes.read_events(house, job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.data["epoch"] for event in events if event.type == "epoch"] == [1, 2, 3]
    steps = [row.step for row in homes.read_metrics(house, job_id) if row.name == "val_loss"]
    assert steps == [14, 28, 42]  # 1,350 training rows in batches of 100


def test_weights_load_in_a_plain_script(house: House, manifest: homes.Manifest) -> None:
    job_id = homes.add_job(house, manifest, epochs=1)
    train_one(house)
    path = house.storage.fetch(homes.read_checkpoints(house, job_id)[0].weights_key)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 32),
        torch.nn.BatchNorm1d(32),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(32, 10),
    )
    net.load_state_dict(torch.load(path, weights_only=True))


def test_only_the_newest_and_the_best_checkpoints_are_kept(house: House, manifest: homes.Manifest) -> None:
    policy = {"keep": 2, "monitor": "val_accuracy", "mode": "min"}  # the worst is soon far behind
    job_id = homes.add_job(house, manifest, epochs=8, checkpoint=policy)
    train_one(house)
    kept = homes.read_checkpoints(house, job_id)
    best = [row for row in kept if row.is_best]
    assert len(best) == 1
    assert len(kept) <= 3
    files = [key for key in house.storage.list(f"jobs/{job_id}") if key.endswith(".pt")]
    assert sorted(files) == sorted(key for row in kept for key in (row.weights_key, row.state_key))


def test_child_kill9_is_tried_again_and_ends_with_the_weights_of_an_unbroken_run(
    house: House, manifest: homes.Manifest
) -> None:
    unbroken = homes.add_job(house, manifest, epochs=60)
    train_one(house)
    broken = homes.add_job(house, manifest, epochs=60)
    thread = train_in_thread(house)
    wait_for(lambda: len(homes.read_checkpoints(house, broken)) > 0)
    kill_child()
    thread.join()
    job = homes.read_job(house, broken)
    assert (job.state, job.losses) == ("queued", 1)
    assert "signal 9" in job.transitions[-1]["reason"]
    train_one(house)
    job = homes.read_job(house, broken)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert final_weights(house, broken) == final_weights(house, unbroken)
    steps = [row.step for row in homes.read_metrics(house, broken) if row.name == "val_loss"]
    assert steps == [14 * epoch for epoch in range(1, 61)]


def test_child_kill9_three_times_without_a_checkpoint_between_fails_the_job(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=LONG, checkpoint={"every_epochs": LONG})
    for _ in range(3):
        thread = train_in_thread(house)
        wait_for(lambda: bool(multiprocessing.active_children()))
        kill_child()
        thread.join()
    job = homes.read_job(house, job_id)
    assert (job.state, job.attempt, job.losses) == ("failed", 3, 3)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert not train_one(house)


def test_cancel_running_stops_within_5_s_and_keeps_the_last_checkpoint(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=LONG)
    thread = train_in_thread(house)
    wait_for(lambda: len(homes.read_checkpoints(house, job_id)) > 0)
    with house.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(wanted="cancel"))
        session.commit()
    asked = time.monotonic()
    thread.join(10)
    assert time.monotonic() - asked < 5
    assert homes.read_job(house, job_id).state == "cancelled"
    assert homes.read_checkpoints(house, job_id)
    assert not multiprocessing.active_children()


def test_sigterm_drain_gives_the_job_back_and_another_ends_it_the_same(
    house: House, manifest: homes.Manifest, database_url: str
) -> None:
    unbroken = homes.add_job(house, manifest, epochs=60)
    train_one(house)
    drained = homes.add_job(house, manifest, epochs=60)
    thread = train_in_thread(house)
    wait_for(lambda: len(homes.read_checkpoints(house, drained)) > 0)
    house.draining.set()
    thread.join(10)
    job = homes.read_job(house, drained)
    assert (job.state, job.losses, job.transitions[-1]["reason"]) == ("queued", 0, "drained")
    other = homes.open_house(database_url, house.settings.home)
    train_one(other)
    other.database.close()
    assert homes.read_job(house, drained).state == "succeeded"
    assert final_weights(house, drained) == final_weights(house, unbroken)


def test_zombie_writer_whose_job_was_taken_over_writes_nothing_more(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=LONG, checkpoint={"every_epochs": LONG})
    thread = train_in_thread(house)
    wait_for(lambda: homes.read_job(house, job_id).started_at is not None)
    with house.database.write() as session:  # as a claim by another does
        session.execute(update(Job).where(Job.id == job_id).values(fence=Job.fence + 1))
        session.commit()
    taken = homes.read_job(house, job_id)
    thread.join(10)
    assert not multiprocessing.active_children()
    after = homes.read_job(house, job_id)
    assert (after.state, after.revision, after.beat) == ("running", taken.revision, taken.beat)


def test_bitflip_in_the_newest_checkpoint_is_found_told_and_passed_over_for_the_one_before(
    house: House, manifest: homes.Manifest
) -> None:
    unbroken = homes.add_job(house, manifest, epochs=60)
    train_one(house)
    job_id = homes.add_job(house, manifest, epochs=60)
    thread = train_in_thread(house)
    wait_for(lambda: len(homes.read_checkpoints(house, job_id)) > 1)
    kill_child()
    thread.join()
    newest = homes.read_checkpoints(house, job_id)[0]
    path = house.storage.fetch(newest.weights_key)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    train_one(house)
    assert homes.read_job(house, job_id).state == "succeeded"
    assert final_weights(house, job_id) == final_weights(house, unbroken)
    warnings = [
        event.data["message"] for event in homes.read_events(house, job_id) if event.type == "warning"
    ]
    assert any(newest.id in message and "damaged" in message for message in warnings)
    with house.database.read() as session:
        assert session.get_one(Checkpoint, newest.id).state == "corrupt"


def test_a_loss_that_is_no_number_fails_the_job_and_says_where(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=20, optimizer={"type": "SGD", "lr": 1e30})
    train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "non_finite_loss"
    assert "step" in job.error["message"]


def test_a_job_whose_dataset_lost_its_file_fails_and_says_so(house: House, manifest: homes.Manifest) -> None:
    job_id = homes.add_job(house, manifest)
    house.storage.delete("datasets/ds_digits/1/data.arrow")
    train_one(house)
    job = homes.read_job(house, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "dataset_unavailable"


def test_a_best_checkpoint_that_is_damaged_gives_way_to_an_intact_one(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest, epochs=2)
    train_one(house)
    kept = homes.read_checkpoints(house, job_id)
    best = next(row for row in kept if row.is_best)
    other = next(row for row in kept if not row.is_best)
    house.storage.fetch(best.weights_key).write_bytes(b"not what was written")
    with house.database.write() as session:  # as if it were about to register
        session.execute(update(Job).where(Job.id == job_id).values(state="running"))
        session.commit()
    job = homes.read_job(house, job_id)
    order = Conversation(house, job, Ledger(house, job), NoChild()).choose()
    assert order.weights == str(house.storage.fetch(other.weights_key))
    assert best.id not in [row.id for row in homes.read_checkpoints(house, job_id)]


def test_a_database_that_is_away_for_a_moment_costs_no_attempt(
    house: House, manifest: homes.Manifest
) -> None:
    job_id = homes.add_job(house, manifest)
    answers = iter([OperationalError("UPDATE", {}, Exception("gone")), "run"])

    def write() -> str:
        answer = next(answers)
        if isinstance(answer, OperationalError):
            raise answer
        return answer

    assert Ledger(house, homes.read_job(house, job_id)).patiently(write) == "run"


def test_a_job_in_bf16_trains_and_its_version_answers_in_fp32(house: House, manifest: homes.Manifest) -> None:
    job_id = homes.add_job(house, manifest, epochs=8, precision="bf16")
    train_one(house)
    job = homes.read_job(house, job_id)
    assert (job.state, job.resolved["precision"]) == ("succeeded", "bf16")
    assert job.metrics["test_accuracy"] > 0.8
    weights = torch.load(
        house.storage.fetch(homes.read_checkpoints(house, job_id)[0].weights_key), weights_only=True
    )
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
