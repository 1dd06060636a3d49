"""Event files on a disk that gets full, wherever TensorBoard's threads meet it: nothing waits for them."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.compat.tensorflow_stub.io import gfile
from torch.utils.tensorboard import SummaryWriter

from workers.board import writer
from workers.board.writer import Writer

# TensorBoard's thread dies of what it meets, as it does in a worker.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set it, and the disk of event files has no more room."""
    is_full = threading.Event()
    append = gfile.LocalFileSystem.append

    def write(self: object, filename: str, content: bytes, binary_mode: bool = False) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, filename, content, binary_mode)

    monkeypatch.setattr(gfile.LocalFileSystem, "append", write)
    monkeypatch.setattr(writer, "FLUSH_S", 0.05)
    before = set(threading.enumerate())
    yield is_full
    for thread in set(threading.enumerate()) - before:
        thread.join(5)


def closes(opened: Writer) -> bool:
    """Within 5 s."""
    closing = threading.Thread(target=opened.close, daemon=True)
    closing.start()
    closing.join(5)
    return not closing.is_alive()


def test_a_disk_that_is_full_at_the_last_flush_is_told_and_holds_nobody_up(
    tmp_path: Path, full: threading.Event
) -> None:
    told: list[str] = []
    opened = Writer(tmp_path, 1, told.append)

    def last(board: SummaryWriter) -> None:
        full.set()
        board.add_scalar("loss", 1.0, 1)

    opened.add(last)
    assert closes(opened)
    (message,) = told
    assert "TensorBoard" in message
    assert os.strerror(errno.ENOSPC) in message


def test_a_disk_that_gets_full_in_between_is_told_once_and_what_comes_after_is_let_go(
    tmp_path: Path, full: threading.Event
) -> None:
    told: list[str] = []
    opened = Writer(tmp_path, 1, told.append)
    opened.add(lambda board: full.set())
    deadline = time.monotonic() + 10
    while not told:
        assert time.monotonic() < deadline
        opened.add(lambda board: board.add_scalar("loss", 1.0, 1))
        time.sleep(0.01)
    opened._thread.join(5)
    for _ in range(1000):
        opened.add(lambda board: board.add_scalar("loss", 1.0, 1))
    assert opened.waiting == 0
    assert closes(opened)
    assert len(told) == 1


def test_a_disk_that_was_full_before_is_told_and_holds_nobody_up(
    tmp_path: Path, full: threading.Event
) -> None:
    full.set()
    told: list[str] = []
    opened = Writer(tmp_path, 1, told.append)
    opened.add(lambda board: board.add_scalar("loss", 1.0, 1))
    assert closes(opened)
    assert len(told) == 1
