"""What a loop hears of a checkpoint that finds no room, on a disk that says so."""

import errno
import os
from pathlib import Path

import pytest
import torch

from core.nets import artifacts
from tests.fakes import FakeLink
from workers.messages import AnyReport, Noted, Saved, Stop
from workers.saving import TRIES, Saver, Snapshot, StorageFull

SNAPSHOT = Snapshot(1, 7, {}, {"weight": torch.zeros(3)}, {})


class StoppedLink(FakeLink):
    """Is told to stop as soon as a shortage is."""

    def __init__(self, stop: Stop | None) -> None:
        super().__init__()
        self._coming = stop

    def send(self, report: AnyReport) -> None:
        super().send(report)
        if isinstance(report, Noted):
            self.stop = self._coming

    def wait_for_stop(self, timeout_s: float) -> bool:
        return self.stop is not None


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts, "save", refuse)
    monkeypatch.setattr(os, "posix_fallocate", refuse)


@pytest.mark.parametrize("saves", [True, False], ids=["drain", "cancel"])
def test_a_stop_while_the_disk_is_full_is_no_error(saves: bool, tmp_path: Path) -> None:
    link = StoppedLink(Stop(saves))
    saver = Saver(link, tmp_path)
    saver.save(SNAPSHOT)
    assert not saver.wait()
    assert [note.type for note in link.all(Noted)] == ["storage_full"]
    assert not link.all(Saved)


def test_without_a_stop_a_disk_that_stays_full_is_told_at_each_try_and_raised(tmp_path: Path) -> None:
    link = StoppedLink(None)
    saver = Saver(link, tmp_path)
    saver.save(SNAPSHOT)
    with pytest.raises(StorageFull, match=r"step 7 needs .* bytes"):
        saver.wait()
    assert len(link.all(Noted)) == TRIES
    assert not list(tmp_path.iterdir())
