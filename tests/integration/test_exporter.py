"""The exporter: one child at a time, killed at its deadline; a file is made once, whoever leaves or waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.db.models import Checkpoint
from core.errors import Gone, Invalid, Unavailable
from core.export import stored
from core.settings import Settings
from core.storage.local import LocalStorage
from modelyard.specs import WeightsFormat
from service import exporter as module
from service.exporter import Exporter, Wanted
from service.helper import Helper, plans
from tests import answers


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children are forked from a server that has torch, as in the service."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), plan_processes=1)
    helper = Helper(plans(settings), answers.obey)
    helper.start()
    yield
    helper.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[module.Child]:
    """Every child of an export."""
    children: list[module.Child] = []
    real = module.Child

    def starting(*args: Any) -> module.Child:
        children.append(real(*args))
        return children[-1]

    monkeypatch.setattr(module, "Child", starting)
    return children


@asynccontextmanager
async def running(home: Path, **settings: Any) -> AsyncIterator[Exporter]:
    storage = LocalStorage(home / "artifacts")
    exporter = Exporter(Settings(home=home, min_free_bytes=0, **settings), storage, answers.export)
    try:
        yield exporter
    finally:
        exporter.close()


def wanted(home: Path, job: str, checkpoint_id: str = "ckpt_1") -> Wanted:
    """An export whose child does what the job's id says."""
    weights = home / "artifacts" / "weights.pt"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"weights")
    row = Checkpoint(
        id=checkpoint_id, job_id=job, step=1, weights_key="weights.pt", weights_bytes=7, weights_sha256=""
    )
    return Wanted(row, None, WeightsFormat.SAFETENSORS)


async def test_a_file_is_made_once_for_all_who_ask_and_found_afterwards(
    tmp_path: Path, started: list[module.Child]
) -> None:
    async with running(tmp_path) as exporter:
        asked = [exporter.key_of(wanted(tmp_path, "sleep 0.3")) for _ in range(5)]
        keys = await asyncio.gather(*asked)
        keys.append(await exporter.key_of(wanted(tmp_path, "sleep 0.3")))
    assert len(set(keys)) == len(started) == 1
    path = tmp_path / "artifacts" / keys[0]
    assert path.read_text() == "sleep 0.3"
    assert list((tmp_path / "scratch" / "spool").iterdir()) == []


async def test_an_export_that_takes_too_long_is_ended_and_the_reason_is_remembered(
    tmp_path: Path, started: list[module.Child]
) -> None:
    async with running(tmp_path, export_deadline_s=0.5) as exporter:
        for _ in range(2):
            with pytest.raises(Invalid, match=r"longer than the 0\.5 s") as raised:
                await exporter.key_of(wanted(tmp_path, "spin"))
            assert raised.value.code == "export_deadline"
        assert len(started) == 1
        assert await exporter.key_of(wanted(tmp_path, "next", "ckpt_2"))


async def test_a_net_that_ends_two_children_is_told_so_and_the_next_one_is_exported(
    tmp_path: Path, started: list[module.Child]
) -> None:
    async with running(tmp_path) as exporter:
        with pytest.raises(Invalid, match="twice") as raised:
            await exporter.key_of(wanted(tmp_path, "crash"))
        assert raised.value.code == "export_crashed"
        assert len(started) == 2
        assert await exporter.key_of(wanted(tmp_path, f"crash once {tmp_path / 'crashed'}", "ckpt_2"))


async def test_who_was_held_for_long_is_told_to_come_again_and_finds_the_file(
    tmp_path: Path, started: list[module.Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.2)
    async with running(tmp_path) as exporter:
        with pytest.raises(Unavailable) as raised:
            await exporter.key_of(wanted(tmp_path, "sleep 0.6"))
        assert (raised.value.code, raised.value.retry_after_s) == ("export_under_way", module.RETRY_AFTER_S)
        monkeypatch.setattr(module, "HOLD_S", 30.0)
        assert await exporter.key_of(wanted(tmp_path, "sleep 0.6"))
    assert len(started) == 1


async def test_who_leaves_takes_the_export_from_nobody(tmp_path: Path, started: list[module.Child]) -> None:
    async with running(tmp_path) as exporter:
        leaving = asyncio.create_task(exporter.key_of(wanted(tmp_path, "sleep 0.5")))
        await asyncio.sleep(0.1)
        staying = asyncio.create_task(exporter.key_of(wanted(tmp_path, "sleep 0.5")))
        leaving.cancel()
        assert await staying
    assert len(started) == 1


async def test_once_it_stops_its_child_is_gone_and_who_waits_is_told(
    tmp_path: Path, started: list[module.Child]
) -> None:
    async with running(tmp_path) as exporter:
        asking = asyncio.create_task(exporter.key_of(wanted(tmp_path, "sleep 60")))
        await asyncio.to_thread(until, started)
        before = time.monotonic()
        exporter.stop()
        with pytest.raises(Unavailable, match="stops"):
            await asking
        assert time.monotonic() - before < 1
        with pytest.raises(Unavailable, match="stops"):
            await exporter.key_of(wanted(tmp_path, "next", "ckpt_2"))
    assert len(started) == 1


async def test_who_comes_when_too_many_wait_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MAKING", 2)
    async with running(tmp_path) as exporter:
        waiting = [
            asyncio.create_task(exporter.key_of(wanted(tmp_path, f"sleep 0.{number}", f"ckpt_{number}")))
            for number in (2, 3)
        ]
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="ask again") as raised:
            await exporter.key_of(wanted(tmp_path, "next", "ckpt_4"))
        assert raised.value.code == "exports_busy"
        assert all(await asyncio.gather(*waiting))


async def test_weights_that_went_meanwhile_are_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as exporter:
        asked = wanted(tmp_path, "next")
        (tmp_path / "artifacts" / "weights.pt").unlink()
        with pytest.raises(Gone):
            await exporter.key_of(asked)


def until(started: list[module.Child]) -> None:
    deadline = time.monotonic() + 30
    while not started:
        assert time.monotonic() < deadline, "no child was started within 30 s"
        time.sleep(0.02)


def test_a_file_half_copied_is_no_export(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    kind = WeightsFormat.ONNX
    folder = tmp_path / stored.key_of("ckpt_1", None, kind, "x").rpartition("/")[0]
    folder.mkdir(parents=True)
    (folder / f".{'a' * 64}.77").touch()
    assert stored.find(storage, "ckpt_1", None, kind) is None
    (folder / ("b" * 64)).touch()
    found = stored.find(storage, "ckpt_1", None, kind)
    assert found == stored.key_of("ckpt_1", None, kind, "b" * 64)
    assert stored.find(storage, "ckpt_1", "ver_1", kind) is None
