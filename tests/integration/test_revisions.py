"""What a watcher asks ten times a second: on SQLite and PostgreSQL, and where the file is locked."""

from collections.abc import AsyncIterator

import pytest

from core.db.engines import AsyncDatabase, open_async_database, open_database
from core.db.statements import datasets
from service.revisions import Revisions, open_near
from tests.rows import add_dataset, create_tables


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[AsyncDatabase]:
    database = open_database(database_url)
    create_tables(database)
    with database.write() as session:
        add_dataset(session, id="ds_1", revision=7)
        session.commit()
    database.close()
    opened = open_async_database(database_url)
    yield opened
    await opened.close()


async def test_revisions_are_those_of_the_rows_that_there_are(
    service: AsyncDatabase, database_url: str
) -> None:
    near = open_near(database_url)
    assert (near is not None) == database_url.startswith("sqlite")
    revisions = Revisions(service, near, datasets.revisions)
    assert await revisions(["ds_1", "ds_gone"]) == {"ds_1": 7}
    if near is not None:
        near.close()


async def test_a_file_that_cannot_be_read_at_once_is_asked_for_in_the_other_way(
    service: AsyncDatabase, tmp_path_factory: pytest.TempPathFactory
) -> None:
    near = open_near(f"sqlite:///{tmp_path_factory.mktemp('away') / 'no' / 'folder.db'}")
    assert near is not None
    assert await Revisions(service, near, datasets.revisions)(["ds_1"]) == {"ds_1": 7}
    near.close()
