"""Batch predictions with real children, on both databases: what is answered, what is told, what stops one."""

import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from core.data.arrow import open_table
from core.db.models import BatchPrediction, Job, Version, utc_now
from core.nets.plan import Source, check
from core.storage.durable import sha256_file
from modelyard.specs import BatchState
from tests import batch_predictions as batches
from tests import house as homes
from tests.attempts import table
from tests.make_data import csv_bytes, jsonl_bytes, parquet_bytes
from workers import children
from workers.house import House
from workers.predictions import orders, process
from workers.tasks import predict_one, train_one, work_one

#: Training and test rows whose images are cut short, and their places among all.
SPOILED = [0, 3, 300, 1500, 1796]
LAYERS = [{"type": "Linear", "out_features": 3}]
CITIES = ["bern", "rome", "oslo"]


#: For what has nothing to do with the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> None:
    children.preload()


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(database_url, tmp_path / "home", retry_backoff_s=0)
    yield opened
    opened.database.close()


@pytest.fixture
def digits(house: House, tmp_path: Path) -> House:
    """With a version that tells digits, and the digits with five images cut short."""
    homes.add_job(house, homes.add_digits(house, tmp_path), epochs=1)
    assert train_one(house)
    homes.add_spoiled_digits(house, tmp_path, SPOILED)
    return house


@pytest.fixture
def cities(house: House, tmp_path: Path) -> House:
    """With a version that tells a city from a size, a flag and a word, and its rows as `cities@1`."""
    rng = np.random.default_rng(0)
    made = table(
        {
            "size": rng.standard_normal(120),
            "is_old": [bool(flag) for flag in rng.integers(0, 2, 120)],
            "word": [str(word) for word in rng.choice(["hill", "lake", "port"], 120)],
            "city": [str(city) for city in rng.choice(CITIES, 120)],
        }
    )
    manifest = homes.add_table(house, tmp_path, "cities", made)
    raw = {
        "name": "cities",
        "dataset": "cities@1",
        "target": "city",
        "model": {"type": "Sequential", "layers": LAYERS},
        "trainer": {"epochs": 1},
    }
    homes.queue_job(house, check(raw, Source("cities@1", manifest)).spec, dataset="cities")
    assert train_one(house)
    return house


def test_each_row_has_its_answer_or_its_error_in_order(digits: House) -> None:
    batch_id = batches.queue(digits, "spoiled")
    assert predict_one(digits)
    batch = batches.read(digits, batch_id)
    assert (batch.state, batch.attempt, batch.losses, batch.error) == ("succeeded", 1, 0, None)
    answered, failed = batches.answers(digits, batch_id), batches.answers(digits, batch_id, "errors")
    assert [row["row"] for row in failed] == SPOILED
    assert [row["row"] for row in answered] == [row for row in range(1797) if row not in SPOILED]
    assert [row["split"] for row in failed] == ["train"] * 3 + ["test"] * 2
    assert {row["code"] for row in failed} == {"bad_instance"}
    images = open_table(digits.storage.fetch("datasets/ds_spoiled/1/data.arrow")).column("image").to_pylist()
    expected = batches.predictor(digits).predict([images[row["row"]] for row in answered])
    assert [row["label"] for row in answered] == [one.label for one in expected]
    assert [row["score"] for row in answered] == pytest.approx([one.score for one in expected], abs=1e-6)
    assert batch.progress["rows_done"] == batch.progress["rows"] == 1797
    assert (batch.progress["errors"], batch.progress["fraction"]) == (5, 1.0)
    assert not list(digits.settings.scratch().glob("predictions/*/*"))


@on_sqlite
def test_one_split_is_numbered_by_itself(digits: House) -> None:
    batch_id = batches.queue(digits, "spoiled", split="test", format="parquet")
    predict_one(digits)
    answered, failed = batches.answers(digits, batch_id), batches.answers(digits, batch_id, "errors")
    assert [row["row"] for row in failed] == [0, 296]
    assert sorted(row["row"] for row in answered + failed) == list(range(297))
    assert {row["split"] for row in answered + failed} == {"test"}


@on_sqlite
def test_the_three_formats_say_the_same(digits: House) -> None:
    found = {kind: batches.queue(digits, "spoiled", format=kind) for kind in ("parquet", "csv", "jsonl")}
    while predict_one(digits):
        pass
    plain = batches.answers(digits, found["jsonl"])
    assert batches.answers(digits, found["parquet"]) == plain
    cells = batches.answers(digits, found["csv"])
    assert [(int(row["row"]), row["label"], float(row["score"])) for row in cells] == [
        (row["row"], row["label"], row["score"]) for row in plain
    ]
    failed = [batches.answers(digits, batch_id, "errors") for batch_id in found.values()]
    assert failed[0] == failed[2]
    assert [row["message"] for row in failed[1]] == [row["message"] for row in failed[0]]


def rows_of_cities() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {"id": row, "size": float(size), "is_old": bool(row % 2), "word": "lake"}
        for row, size in enumerate(rng.standard_normal(40).round(3))
    ]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return csv_bytes([list(rows[0]), *(["" if v is None else v for v in row.values()] for row in rows)])


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    return parquet_bytes({name: [row[name] for row in rows] for name in rows[0]})


@on_sqlite
@pytest.mark.parametrize("write", [as_csv, jsonl_bytes, as_parquet], ids=["csv", "jsonl", "parquet"])
def test_an_uploaded_file_is_answered_as_the_rows_are_one_by_one(cities: House, write: Any) -> None:
    rows = rows_of_cities()
    rows[7]["size"] = None  # it was never missing in training
    batch_id = batches.queue(cities, upload_id=batches.upload(cities, write(rows)))
    predict_one(cities)
    answered, failed = batches.answers(cities, batch_id), batches.answers(cities, batch_id, "errors")
    assert [(row["row"], row["code"]) for row in failed] == [(7, "bad_instance")]
    assert "size" in failed[0]["message"]
    assert "split" not in answered[0]
    taken = [{name: row[name] for name in ("size", "is_old", "word")} for row in rows]
    expected = batches.predictor(cities).predict([taken[row["row"]] for row in answered])
    assert [row["label"] for row in answered] == [one.label for one in expected]
    assert [row["score"] for row in answered] == pytest.approx([one.score for one in expected], abs=1e-6)
    assert batches.read(cities, batch_id).progress["rows"] == 40


@on_sqlite
def test_a_row_of_a_file_that_is_broken_spoils_no_other(cities: House) -> None:
    lines = as_csv(rows_of_cities()).splitlines()
    lines[3] = b"2,0.5"
    lines[5] = b"4,much,true,lake"
    lines[9] = b"8,0.5,true,l\xff"
    batch_id = batches.queue(cities, upload_id=batches.upload(cities, b"\n".join(lines)))
    predict_one(cities)
    failed = batches.answers(cities, batch_id, "errors")
    assert [(row["row"], row["code"]) for row in failed] == [
        (2, "bad_csv"), (4, "bad_instance"), (8, "bad_encoding")
    ]  # fmt: skip
    assert len(batches.answers(cities, batch_id)) == 37


@on_sqlite
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'size,is_old,word\n1,true,"lake\n2,true,lake\n', "does not parse"),
        (b"size,word\n1,lake\n", "is_old"),
        (b"PAR1 and no more", "no readable Parquet"),
    ],
    ids=["open quote", "missing column", "parquet"],
)
def test_a_file_that_cannot_be_read_fails_and_says_why(cities: House, data: bytes, said: str) -> None:
    batch_id = batches.queue(cities, upload_id=batches.upload(cities, data))
    predict_one(cities)
    batch = batches.read(cities, batch_id)
    assert batch.state == "failed"
    assert batch.error is not None
    assert batch.error["code"] == "dataset_unavailable"
    assert said in batch.error["message"]


@on_sqlite
def test_no_rows_make_two_empty_files(cities: House) -> None:
    batch_id = batches.queue(
        cities, upload_id=batches.upload(cities, b"size,is_old,word\n"), format="parquet"
    )
    predict_one(cities)
    assert batches.answers(cities, batch_id) == batches.answers(cities, batch_id, "errors") == []
    assert batches.read(cities, batch_id).progress["fraction"] == 1.0


# What stops one


@pytest.fixture
def slow(digits: House, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of eight parts, each of which takes its time."""
    monkeypatch.setattr(orders, "PART_ROWS", 256)
    monkeypatch.setattr(process, "_run", batches.run_slowly_at_first)
    return batches.queue(digits, "spoiled")


def in_thread(house: House) -> threading.Thread:
    thread = threading.Thread(target=predict_one, args=(house,))
    thread.start()
    return thread


def wait_for_part(house: House, batch_id: str) -> None:
    deadline = time.monotonic() + 30
    while not batches.parts(house, batch_id):
        assert time.monotonic() < deadline, batches.read(house, batch_id).error
        time.sleep(0.01)


def test_a_cancelled_one_stops_within_two_seconds(digits: House, slow: str) -> None:
    thread = in_thread(digits)
    wait_for_part(digits, slow)
    with digits.database.write() as session:
        session.execute(update(BatchPrediction).values(wanted="cancel"))
        session.commit()
    asked = time.monotonic()
    while batches.read(digits, slow).state == "running":
        assert time.monotonic() - asked < 2
        time.sleep(0.01)
    thread.join(10)
    assert batches.read(digits, slow).state == "cancelled"
    assert not multiprocessing.active_children()
    assert not predict_one(digits)


def test_a_draining_worker_gives_it_back_and_another_ends_it_the_same(
    digits: House, slow: str, database_url: str
) -> None:
    thread = in_thread(digits)
    wait_for_part(digits, slow)
    digits.draining.set()
    thread.join(10)
    batch = batches.read(digits, slow)
    assert (batch.state, batch.losses) == ("queued", 0)
    assert batch.transitions[-1]["reason"] == "drained"
    kept = sum(part.rows for part in batches.parts(digits, slow))
    assert kept
    other = homes.open_house(database_url, digits.settings.home)
    assert predict_one(other)
    unbroken = batches.queue(other, "spoiled", fence=1)  # not slowed down
    assert predict_one(other)
    assert batches.hashes(other, slow) == batches.hashes(other, unbroken)
    other.database.close()


def test_an_attempt_whose_work_was_taken_over_writes_nothing_more(digits: House, slow: str) -> None:
    thread = in_thread(digits)
    wait_for_part(digits, slow)
    with digits.database.write() as session:  # as a claim by another does
        session.execute(update(BatchPrediction).values(fence=BatchPrediction.fence + 1))
        session.commit()
    taken, kept = batches.read(digits, slow), len(batches.parts(digits, slow))
    thread.join(10)
    after = batches.read(digits, slow)
    assert (after.state, after.revision, after.beat) == ("running", taken.revision, taken.beat)
    parts = batches.parts(digits, slow)
    assert len(parts) == kept
    stored = list(digits.storage.list(f"batch-predictions/{slow}"))
    assert stored == [part.key for part in parts]


def test_three_deaths_without_a_part_between_fail_it(digits: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_run", batches.die)
    batch_id = batches.queue(digits, "spoiled")
    assert [predict_one(digits) for _ in range(4)] == [True, True, True, False]
    batch = batches.read(digits, batch_id)
    assert (batch.state, batch.attempt, batch.losses) == ("failed", 3, 3)
    assert batch.error is not None
    assert batch.error["code"] == "worker_lost"
    assert "exit code 7" in batch.error["message"]


@on_sqlite
def test_a_damaged_part_is_made_again(digits: House, slow: str) -> None:
    thread = in_thread(digits)
    wait_for_part(digits, slow)
    digits.draining.set()
    thread.join(10)
    digits.draining.clear()
    path = digits.storage.fetch(batches.parts(digits, slow)[0].key)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert predict_one(digits)
    unbroken = batches.queue(digits, "spoiled", fence=1)  # not slowed down
    assert predict_one(digits)
    assert batches.hashes(digits, slow) == batches.hashes(digits, unbroken)


@on_sqlite
def test_a_version_that_answers_otherwise_here_fails(digits: House) -> None:
    (version,) = homes.read_versions(digits)
    path = digits.storage.fetch(version.manifest_key)
    manifest = json.loads(path.read_bytes())
    manifest["golden"][0]["outputs"][0] += 0.5
    path.write_bytes(json.dumps(manifest).encode())
    with digits.database.write() as session:
        session.execute(update(Version).values(manifest_sha256=sha256_file(path)))
        session.commit()
    batch_id = batches.queue(digits, "spoiled")
    predict_one(digits)
    error = batches.read(digits, batch_id).error
    assert error is not None
    assert (error["code"], "golden samples" in error["message"]) == ("weights_mismatch", True)


@on_sqlite
def test_a_version_whose_files_are_damaged_fails(digits: House) -> None:
    (version,) = homes.read_versions(digits)
    with digits.storage.fetch(version.manifest_key).open("ab") as file:
        file.write(b" ")
    batch_id = batches.queue(digits, "spoiled")
    predict_one(digits)
    error = batches.read(digits, batch_id).error
    assert error is not None
    assert (error["code"], "damaged" in error["message"]) == ("weights_mismatch", True)


# Who comes first


def test_jobs_and_batch_predictions_are_taken_in_the_order_of_priority_and_age(digits: House) -> None:
    manifest = batches.dataset(digits, "digits").manifest
    assert manifest is not None
    old = batches.queue(digits, "digits", split="test")
    spec = homes.read_jobs(digits)[0].spec
    job = homes.queue_job(digits, spec)
    late = batches.queue(digits, "digits", split="test")
    urgent = homes.queue_job(digits, spec)
    with digits.database.write() as session:
        session.execute(update(Job).where(Job.id == urgent).values(priority=1))
        session.commit()
    for _ in range(4):
        assert work_one(digits)
    ended: dict[str, Any] = {one: homes.read_job(digits, one).finished_at for one in (job, urgent)}
    ended |= {one: batches.read(digits, one).finished_at for one in (old, late)}
    assert sorted(ended, key=ended.__getitem__) == [urgent, old, job, late]


def test_one_that_makes_room_goes_back_to_the_queue_and_on(digits: House, slow: str) -> None:
    thread = in_thread(digits)
    wait_for_part(digits, slow)
    with digits.database.write() as session:
        session.execute(update(BatchPrediction).values(preempted_by="job_urgent"))
        session.commit()
    thread.join(10)
    batch = batches.read(digits, slow)
    assert (batch.state, batch.preempted_by, batch.losses) == (BatchState.QUEUED, None, 0)
    assert batch.transitions[-1]["reason"] == "preempted by job_urgent"
    assert batch.queued_at <= utc_now()
    assert predict_one(digits)
    assert batches.read(digits, slow).state == "succeeded"
