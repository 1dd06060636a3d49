"""The child, or the worker, killed at many places of a batch prediction: the bytes of the unbroken run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.manifest import Manifest
from core.db.models import utc_now
from core.db.statements import batch_predictions as statements
from tests import batch_predictions as batches
from tests import house as homes
from tests import injected
from workers.house import House
from workers.tasks import predict_one, train_one

SPOILED = [0, 3, 300, 1500, 1796]

#: Where each stage is, and at which call of it. 1,797 rows are eight parts.
IN_THE_CHILD = {
    "loading": ("workers.predictions.child:_load", 1),
    "counting": ("workers.predictions.child:open_rows", 1),
    "first rows": ("workers.predictions.answers:Answering.answer", 1),
    "later rows": ("workers.predictions.answers:Answering.answer", 5),
    "closing a part": ("workers.predictions.parts:describe", 3),
    "told of a part": ("workers.predictions.link:Link.wait_for", 2),
    "joining": ("workers.predictions.child:join", 1),
    "joined": ("workers.predictions.joining:describe", 2),
}
IN_THE_WORKER = {
    "claimed": ("workers.predictions.supervisor:order_of", 1),
    "before a part's file": ("core.storage.local:LocalStorage.adopt", 3),
    "between file and row": ("workers.predictions.ledger:Ledger.keep", 3),
    "joining": ("workers.predictions.supervisor:Conversation.join", 1),
    "between the two files": ("core.storage.local:LocalStorage.adopt", 10),
    "between files and row": ("workers.predictions.ledger:Ledger.succeed", 1),
}


@pytest.fixture(scope="module")
def digits(house: House, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> House:
    homes.add_job(house, manifest, epochs=1)
    assert train_one(house)
    homes.add_spoiled_digits(house, tmp_path_factory.mktemp("spoiled"), SPOILED)
    return house


@pytest.fixture(scope="module")
def unbroken(digits: House) -> dict[str, tuple[str, str]]:
    """The hashes of the two files, by their format."""
    queued = {kind: batches.queue(digits, "spoiled", format=kind) for kind in ("parquet", "csv", "jsonl")}
    while predict_one(digits):
        pass
    return {kind: batches.hashes(digits, batch_id) for kind, batch_id in queued.items()}


def cases(stages: dict[str, tuple[str, int]], quick: set[str], joining: str) -> Iterator[Any]:
    """Every stage in one format, and one in which the files are made in the others. Those that are not
    `quick` are deep: they look like another from outside."""
    for stage in stages:
        marks = [] if stage in quick else [pytest.mark.deep]
        yield pytest.param("parquet", *stages[stage], id=stage, marks=marks)
    for kind in ("csv", "jsonl"):
        yield pytest.param(kind, *stages[joining], id=f"{joining}, {kind}")


@pytest.mark.parametrize(
    ("kind", "place", "call"),
    list(cases(IN_THE_CHILD, {"later rows", "closing a part", "told of a part", "joining"}, "joined")),
)
def test_a_child_killed_in_any_stage_loses_and_doubles_no_row(
    digits: House, unbroken: dict[str, tuple[str, str]], kind: str, place: str, call: int
) -> None:
    batch_id = batches.queue(digits, "spoiled", format=kind)
    injected.inject(digits, place, "kill", call=call)
    assert predict_one(digits)
    assert not injected.is_left(digits)
    assert batches.read(digits, batch_id).state == "queued"
    assert predict_one(digits)
    assert_ended_once(digits, batch_id, unbroken[kind])


@pytest.mark.parametrize(
    ("kind", "place", "call"),
    list(cases(IN_THE_WORKER, {"before a part's file", "between file and row"}, "between files and row")),
)
def test_a_worker_killed_in_any_stage_loses_and_doubles_no_row(
    digits: House, unbroken: dict[str, tuple[str, str]], kind: str, place: str, call: int
) -> None:
    batch_id = batches.queue(digits, "spoiled", format=kind)
    injected.inject(digits, place, "kill", call=call)
    assert injected.work_in_process(digits) == -9
    assert not injected.is_left(digits)
    assert batches.read(digits, batch_id).state == "running"
    lose(digits, batch_id)
    assert predict_one(digits)
    assert_ended_once(digits, batch_id, unbroken[kind])


def lose(house: House, batch_id: str) -> None:
    """As the sweep does once the lease has run out."""
    batch = batches.read(house, batch_id)
    with house.database.write() as session:
        locked = session.scalars(statements.lock_lost(batch_id, batch.fence, batch.beat)).one()
        statements.lose(locked, "worker lost", utc_now(), max_losses=100, backoff_s=0)
        session.commit()


def assert_ended_once(house: House, batch_id: str, expected: tuple[str, str]) -> None:
    batch = batches.read(house, batch_id)
    assert (batch.state, batch.attempt) == ("succeeded", 2)
    states = [one["state"] for one in batch.transitions]
    assert states == ["running", "queued", "running", "succeeded"]
    assert batches.hashes(house, batch_id) == expected
    parts = batches.parts(house, batch_id)
    assert [part.start for part in parts] == [256 * place for place in range(8)]
    assert sum(part.rows for part in parts) == 1797
    assert not list(Path(house.settings.scratch() / "predictions").glob("*/*"))
