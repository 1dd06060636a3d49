"""How long a key is remembered, and what ends it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

import migrations
from core.db.engines import AsyncDatabase, open_async_database
from core.db.models import Key, utc_now
from core.db.statements import keys
from core.errors import Unauthenticated
from service.keyring import KEPT_S, Keyring
from service.keys import digest_of, new_key
from service.revisions import Revisions


class House:
    """A database with one key, and a keyring on clocks of the test's own."""

    def __init__(self, database: AsyncDatabase) -> None:
        self.database, self.seconds, self.queries = database, 0.0, 0
        self.digest = digest_of(new_key())
        revisions = Revisions(database, None, keys.revisions)

        async def counted(ids: list[str]) -> dict[str, int]:
            self.queries += 1
            return await revisions(ids)

        self.keyring = Keyring(
            database,
            counted,
            clock=lambda: self.seconds,
            now=lambda: self.began + timedelta(seconds=self.seconds),
        )
        self.began = utc_now()

    async def add(self, **values: object) -> None:
        async with self.database.write() as session:
            row = Key(id="key_1", owner="o", name="n", secret_sha256=self.digest, scopes=["read"])
            row.created_at = self.began
            for name, value in values.items():
                setattr(row, name, value)
            session.add(row)
            await session.commit()

    async def revoke(self) -> None:
        async with self.database.write() as session:
            row = await session.get_one(Key, "key_1")
            row.revoked_at = self.began
            await session.commit()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    migrations.upgrade(url)
    database = open_async_database(url)
    yield House(database)
    await database.close()


async def test_a_key_in_use_is_known_for_as_long_as_it_is_good(house: House) -> None:
    await house.add()
    principal = await house.keyring.look_up(house.digest)
    for _ in range(20):
        house.seconds += 0.5
        assert house.keyring.known(house.digest) == principal
        await house.keyring.refresh()
    assert house.queries == 20


async def test_a_key_that_nobody_uses_is_asked_for_by_nobody(house: House) -> None:
    await house.add()
    await house.keyring.look_up(house.digest)
    for _ in range(10):
        house.seconds += 0.5
        await house.keyring.refresh()
    assert house.queries == 1
    assert house.keyring.known(house.digest) is None


async def test_a_key_revoked_elsewhere_is_unknown_within_two_seconds(house: House) -> None:
    await house.add()
    await house.keyring.look_up(house.digest)
    house.seconds = 0.4
    await house.keyring.refresh()
    await house.revoke()
    assert house.keyring.known(house.digest) is not None  # remembered
    house.seconds = 0.9
    await house.keyring.refresh()
    assert house.keyring.known(house.digest) is None
    with pytest.raises(Unauthenticated, match="revoked"):
        await house.keyring.look_up(house.digest)


async def test_a_key_that_can_not_be_asked_for_is_unknown_after_two_seconds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_ids: list[str]) -> dict[str, int]:
        raise OSError("the database is away")

    await house.add()
    await house.keyring.look_up(house.digest)
    monkeypatch.setattr(house.keyring, "_revisions", away)
    house.seconds = KEPT_S - 0.1
    await house.keyring.refresh()
    assert house.keyring.known(house.digest) is not None
    house.seconds = KEPT_S
    assert house.keyring.known(house.digest) is None


async def test_a_key_forgotten_while_it_was_looked_up_is_not_remembered(house: House) -> None:
    await house.add()
    looking = house.keyring.look_up(house.digest)
    original = house.database.read

    def read_and_forget() -> object:
        house.keyring.forget("key_1")
        return original()

    house.keyring._database = type(house.database)(
        house.database.engine,
        read_and_forget,  # type: ignore[arg-type]  # what a commit between the two would do
        house.database.write,
    )
    await looking
    assert house.keyring.known(house.digest) is None


async def test_an_expiring_key_ends_by_itself(house: House) -> None:
    await house.add(expires_at=house.began + timedelta(seconds=1))
    await house.keyring.look_up(house.digest)
    house.seconds = 0.9
    assert house.keyring.known(house.digest) is not None
    house.seconds = 1.1
    assert house.keyring.known(house.digest) is None
    with pytest.raises(Unauthenticated, match="expired"):
        await house.keyring.look_up(house.digest)


async def test_an_unknown_key_is_not_remembered_as_unknown(house: House) -> None:
    with pytest.raises(Unauthenticated, match="not known"):
        await house.keyring.look_up(house.digest)
    await house.add()
    assert (await house.keyring.look_up(house.digest)).owner == "o"
