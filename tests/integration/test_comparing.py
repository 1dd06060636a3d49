"""The child that measures two versions: it answers, or is killed at its deadline; what is gone is told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.db.models import Checkpoint, Dataset, Version
from core.errors import Unavailable
from core.evaluation import Incomparable, Measured
from core.settings import Settings
from core.storage import open_storage
from core.storage.keys import data_key
from service import planner
from service.comparing import MAX_WAITING, Comparer
from service.helper import Helper, plans
from service.likeness import Rival
from tests.rivals import clusters, linear, side, write_arrays


@pytest.fixture(scope="module", autouse=True)
def warm_fork_server(tmp_path_factory: pytest.TempPathFactory, service_fork_server: None) -> Iterator[None]:
    """As the service starts it: children are forked with torch in them."""
    helper = Helper(plans(Settings(home=tmp_path_factory.mktemp("home"), plan_processes=1)), planner.answer)
    helper.start()
    yield
    helper.close()


def rivals(home: Path) -> tuple[Rival, Rival]:
    """Two versions in the storage below `home`, whose data are one dataset's."""
    dataset_row = Dataset(id="ds_1", name="d", version=1, fence=1)
    x, y = clusters(600)
    dataset = write_arrays(home / data_key("ds_1", 1), x, y)
    dataset_row.manifest = msgspec.to_builtins(dataset)
    found = []
    for number in (2, 1):
        name = f"m@{number}"
        written = side(home, name, linear(number), home / data_key("ds_1", 1), dataset)
        version = Version(
            model="m",
            version=number,
            manifest_key=f"{name}/manifest.json",
            spec=msgspec.json.decode(written.spec),
        )
        found.append(Rival(version, dataset_row, Checkpoint(weights_key=f"{name}/weights.pt")))
    return found[0], found[1]


def comparer(home: Path, **settings: Any) -> Comparer:
    return Comparer(Settings(home=home, **settings), open_storage(f"file://{home}", home / "fetched"))


async def test_the_child_answers_with_both_numbers(tmp_path: Path) -> None:
    reply = await comparer(tmp_path).measure("val", "accuracy", *rivals(tmp_path))
    assert isinstance(reply, Measured)
    assert (reply.rows, reply.left_out) == (60, 0)


async def test_a_comparison_beyond_its_deadline_is_none(tmp_path: Path) -> None:
    reply = await comparer(tmp_path, compare_deadline_s=0.001).measure("val", "accuracy", *rivals(tmp_path))
    assert reply == Incomparable("measuring them takes longer than 0.001 s")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (data_key("ds_1", 1), "the rows of d@1 are deleted"),
        ("m@1/weights.pt", "the files of m@1 are no longer there"),
    ],
)
async def test_what_is_gone_cannot_be_compared(tmp_path: Path, key: str, reason: str) -> None:
    found = rivals(tmp_path)
    (tmp_path / key).unlink()
    assert await comparer(tmp_path).measure("val", "accuracy", *found) == Incomparable(reason)


async def test_more_comparisons_than_may_wait_are_told_to_come_again(tmp_path: Path) -> None:
    found, one = rivals(tmp_path), comparer(tmp_path)
    with one._alone:
        asked = [asyncio.create_task(one.measure("val", "accuracy", *found)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=f"{MAX_WAITING} comparisons wait already"):
            await one.measure("val", "accuracy", *found)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
