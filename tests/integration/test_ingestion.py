"""The worker's side of an upload: what a claimed dataset becomes, and what stays behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from core.db.models import Dataset, utc_now
from tests import house as homes
from tests.make_data import csv_bytes
from workers.house import House
from workers.tasks import ingest_one


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    opened = homes.open_house(database_url, tmp_path / "home", pool="data")
    yield opened
    opened.database.close()


def add_upload(house: House, content: bytes, filename: str = "rows.csv") -> str:
    spooled = house.settings.scratch() / "upload"
    spooled.parent.mkdir(parents=True, exist_ok=True)
    spooled.write_bytes(content)
    house.storage.adopt("datasets/ds_rows/source", spooled)
    with house.database.write() as session:
        session.add(
            Dataset(
                id="ds_rows",
                owner=homes.OWNER,
                name="rows",
                version=1,
                state="queued",
                format="auto",
                options={},
                filename=filename,
                source_key="datasets/ds_rows/source",
                bytes=len(content),
                sha256="0" * 64,
                created_at=utc_now(),
            )
        )
        session.commit()
    return "ds_rows"


def read_dataset(house: House) -> Dataset:
    with house.database.read() as session:
        return session.scalars(select(Dataset)).one()


ROWS = csv_bytes([("x", "y"), *((number, 2 * number) for number in range(50))])


def test_an_upload_becomes_a_ready_dataset_with_its_files_in_storage(house: House) -> None:
    add_upload(house, ROWS)
    assert ingest_one(house)
    dataset = read_dataset(house)
    assert (dataset.state, dataset.error) == ("ready", None)
    assert dataset.manifest is not None
    assert dataset.manifest["splits"] == {"train": 50}
    stored = set(house.storage.list("datasets/ds_rows"))
    assert {"datasets/ds_rows/1/data.arrow", "datasets/ds_rows/1/manifest.json"} <= stored
    assert not list(house.settings.scratch().glob("ingest/*/*"))


def test_an_upload_that_cannot_be_read_fails_with_the_reader_s_own_words(house: House) -> None:
    add_upload(house, ROWS + b'7,"never closed\n')
    ingest_one(house)
    dataset = read_dataset(house)
    assert dataset.state == "failed"
    assert dataset.error is not None
    assert dataset.error["status"] == 422
    assert dataset.error["code"] == "bad_csv"
    assert not list(house.settings.scratch().glob("ingest/*/*"))


def test_a_reader_that_takes_too_long_is_ended_and_said_to_be(database_url: str, tmp_path: Path) -> None:
    house = homes.open_house(database_url, tmp_path / "home", pool="data", ingest_timeout_s=0.01)
    add_upload(house, ROWS)
    ingest_one(house)
    dataset = read_dataset(house)
    assert dataset.state == "failed"
    assert dataset.error is not None
    assert dataset.error["code"] == "too_large"
    house.database.close()


def test_a_draining_worker_gives_an_upload_back(house: House) -> None:
    add_upload(house, ROWS)
    house.draining.set()
    ingest_one(house)
    dataset = read_dataset(house)
    assert (dataset.state, dataset.losses) == ("queued", 0)
    house.draining.clear()
    ingest_one(house)
    assert read_dataset(house).state == "ready"
