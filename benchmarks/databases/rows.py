"""Rows of a house that has worked for years: jobs of two owners, their first events, what they measured.

Written past SQLAlchemy, each database by its fastest way in; the tables are those of the migrations.
"""

import json
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import psycopg
from sqlalchemy import make_url

from core.db.engines import is_in_process

START = datetime(2026, 1, 1, tzinfo=UTC)
DATASET = "ds_0000"
MINE, THEIRS = "default", "other"
#: Every tenth job is the other owner's, three in ten wait, and one in a thousand has as many numbers as a
#: thousand others.
THEIRS_EVERY, WAITING_SHARE, LONG_EVERY = 10, 0.3, 1000
NAMES = ("grad_norm", "lr", "train_loss", "val_accuracy", "val_loss")
BATCH = 50_000

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Amount:
    jobs: int
    metrics: int

    @property
    def steps(self) -> int:
        """Of an ordinary job; the long ones share the other half of the numbers."""
        return max(1, self.metrics // 2 // (self.jobs * len(NAMES)))

    @property
    def long_steps(self) -> int:
        return max(1, self.metrics // 2 // (max(1, self.jobs // LONG_EVERY) * len(NAMES)))


def job_id(number: int) -> str:
    """They sort by time of creation, as UUIDv7 does."""
    return f"job_{number:032x}"


def fill(url: str, amount: Amount, spec: dict[str, Any]) -> None:
    """Into a database that has the newest schema and no rows."""
    filled: list[tuple[str, Iterator[dict[str, Any]]]] = [
        ("datasets", _datasets()),
        ("jobs", _jobs(amount, spec)),
        ("events", _events(amount)),
        ("metrics", _metrics(amount)),
    ]
    if is_in_process(url):
        _fill_sqlite(url, filled)
    else:
        _fill_postgresql(url, filled)


def _fill_sqlite(url: str, filled: list[tuple[str, Iterator[dict[str, Any]]]]) -> None:
    with closing(sqlite3.connect(make_url(url).database or "")) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-400000")
        for table, rows in filled:
            names, values = _as_tuples(rows)
            places = ", ".join("?" * len(names))
            statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608 - our own names
            while part := list(islice(values, BATCH)):
                with connection:
                    connection.executemany(statement, part)


def _fill_postgresql(url: str, filled: list[tuple[str, Iterator[dict[str, Any]]]]) -> None:
    with psycopg.connect(url, autocommit=True) as server:
        for table, rows in filled:
            names, values = _as_tuples(rows)
            with (
                server.cursor() as cursor,
                cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as into,
            ):
                for value in values:
                    into.write_row(value)
        server.execute("VACUUM ANALYZE")  # as its own daemon does in time


def _as_tuples(rows: Iterator[dict[str, Any]]) -> tuple[list[str], Iterator[Row]]:
    first = next(rows)
    return list(first), _chain(first, rows)


def _chain(first: dict[str, Any], rows: Iterable[dict[str, Any]]) -> Iterator[Row]:
    yield tuple(first.values())
    for row in rows:
        yield tuple(row.values())


def _datasets() -> Iterator[dict[str, Any]]:
    yield {
        "id": DATASET, "owner": MINE, "name": "digits", "version": 1, "state": "ready", "revision": 1,
        "format": "image_csv", "options": "{}", "filename": "digits.zip", "source_key": "", "bytes": 1,
        "sha256": "0" * 64, "fence": 1, "beat": 0, "losses": 0, "created_at": _time(0),
    }  # fmt: skip


def _jobs(amount: Amount, spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    whole, progress = (
        json.dumps(spec),
        '{"epoch": 8, "epochs": 8, "step": 400, "steps": 400, "fraction": 1.0}',
    )
    metrics = json.dumps({"train_loss": 0.1, "val_loss": 0.2, "val_accuracy": 0.97, "test_accuracy": 0.96})
    for number in range(amount.jobs):
        drawn, at = chance.random(), _time(number)
        is_waiting = drawn < WAITING_SHARE
        state = "queued" if is_waiting else "failed" if drawn < WAITING_SHARE + 0.05 else "succeeded"
        steps = [{"state": state, "at": at, "reason": "benchmark"}]
        yield {
            "id": job_id(number), "owner": THEIRS if number % THEIRS_EVERY == 0 else MINE,
            "name": f"model-{number % 200}", "state": state, "wanted": "run", "revision": 3,
            "pool": "cpu" if number % 4 else "gpu", "priority": chance.randrange(-2, 3), "devices": 1,
            "dataset_id": DATASET, "spec": whole, "submitted": whole, "warnings": "[]", "fence": 1, "beat": 9,
            "attempt": 0 if is_waiting else 1, "losses": 0, "event_seq": 3, "progress": progress,
            "metrics": metrics, "resolved": '{"device": "cpu", "threads": 2, "precision": "fp32"}',
            "transitions": json.dumps(steps), "created_at": at, "queued_at": at,
            "started_at": None if is_waiting else at, "finished_at": None if is_waiting else at,
        }  # fmt: skip


def _events(amount: Amount) -> Iterator[dict[str, Any]]:
    for number in range(amount.jobs):
        for seq in (1, 2, 3):
            data = '{"state": "running", "reason": "claimed"}'
            yield {"job_id": job_id(number), "seq": seq, "type": "state", "at": _time(number), "data": data}


def _metrics(amount: Amount) -> Iterator[dict[str, Any]]:
    for number in range(amount.jobs):
        steps = amount.long_steps if number % LONG_EVERY == LONG_EVERY - 1 else amount.steps
        at, owner = _time(number), job_id(number)
        for name in NAMES:
            for step in range(1, steps + 1):
                keyed = {"job_id": owner, "name": name, "step": step}
                yield {**keyed, "epoch": 1, "value": 1.0 / step, "at": at}


def _time(number: int) -> str:
    """Both databases read it, and SQLAlchemy reads it from SQLite."""
    return (START + timedelta(seconds=number)).strftime("%Y-%m-%d %H:%M:%S.%f")
