"""A house with the digits, whose children and workers can be made to fail."""

from collections.abc import Iterator

import pytest

from tests import house as homes
from tests import injected
from workers import children
from workers.house import House


@pytest.fixture(scope="session", autouse=True)
def preloaded() -> Iterator[None]:
    children.preload()
    with injected.children_run_through_here():
        yield


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for a module: its jobs share the packed cache. Any number of losses is allowed."""
    folder = tmp_path_factory.mktemp("house")
    opened = homes.open_house(
        f"sqlite:///{folder / 'modelyard.db'}", folder / "home", retry_backoff_s=0, max_losses=100
    )
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def manifest(house: House, tmp_path_factory: pytest.TempPathFactory) -> homes.Manifest:
    return homes.add_digits(house, tmp_path_factory.mktemp("digits"))
