"""Faults at named places of real processes: a child, or a worker, that kills itself or the other, hangs, or
computes nonsense, once.

A test writes what is to happen into the house's folder; children and workers that run through here read it
when they start.
"""

import importlib
import json
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from workers import child, children, messages, saving
from workers.house import House
from workers.link import Link
from workers.predictions import child as predicting_child
from workers.predictions import messages as predicting_messages
from workers.predictions import orders, process
from workers.tasks import work_one

#: How long what is slow takes.
SLOW_S = 1.5

#: Of a batch prediction, so that there are several of few rows.
PART_ROWS = 256

CONTEXT = multiprocessing.get_context("forkserver")


_LINKS: list[Link] = []


class Remembered(Link):
    def __init__(self, connection: multiprocessing.connection.Connection) -> None:
        super().__init__(connection)
        _LINKS.append(self)


def inject(house: House, place: str, do: str, *, call: int = 1, times: int = 1) -> None:
    """At the call of that number of `module:name` in a process: before it `do` is done, in `times` processes
    at most. `do` is the name of a function below."""
    plan = {"place": place, "do": do, "call": call, "times": times}
    _plan_of(house.settings.home).write_text(json.dumps(plan))


def is_left(house: House) -> bool:
    """Whether what was injected has not happened yet."""
    return _plan_of(house.settings.home).exists()


def wait_until_here(house: House) -> None:
    """Until a process is at the place."""
    wait_at(house)
    let_go(house)


def wait_at(house: House) -> None:
    until(_place_of(house.settings.home).exists, "something came to that place")


def let_go(house: House) -> None:
    _place_of(house.settings.home).unlink()


def until(claim: Callable[[], bool], what: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.005)


@contextmanager
def children_run_through_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "_run", run)
        patch.setattr(process, "_run", run_prediction)
        patch.setattr(orders, "PART_ROWS", PART_ROWS)
        yield


def run(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    """In place of `children._run`."""
    scratch = Path(messages.decode_order(payload).scratch)
    _install(scratch.parents[3])
    child.Link = Remembered  # type: ignore[misc]  # what waits for a Stop needs it
    child.main(connection, payload)


def run_prediction(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    """In place of `predictions.process._run`."""
    scratch = Path(predicting_messages.decode_order(payload).scratch)
    _install(scratch.parents[3])
    predicting_child.main(connection, payload)


def work_in_process(house: House) -> int | None:
    """A worker of its own that makes one attempt; its exit code, once it has ended."""
    settings = house.settings.model_dump_json()
    process = CONTEXT.Process(target=_work, args=(settings,))
    process.start()
    process.join(60)
    return process.exitcode


def _work(settings: str) -> None:
    read = Settings.model_validate_json(settings)
    children._run = run
    process._run = run_prediction
    orders.PART_ROWS = PART_ROWS
    _worker_of(read.home).write_text(str(os.getpid()))
    _install(read.home)
    house = House(read)
    work_one(house)
    house.database.close()
    os._exit(0)


def _install(home: Path) -> None:
    """Also where nothing is planned yet: a fault may be injected while the process runs."""
    plan_file = _plan_of(home)
    if not plan_file.exists():
        return
    plan = json.loads(plan_file.read_text())
    module, _, name = plan["place"].partition(":")
    owner = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, act, calls = getattr(owner, last), globals()[plan["do"]], [0]

    def wrapped(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] != plan["call"] or not _take(plan_file):
            return original(*args, **keywords)
        return act(home, original, *args, **keywords)

    setattr(owner, last, wrapped)


def _take(plan_file: Path) -> bool:
    """One of the times that it may happen."""
    try:
        plan = json.loads(plan_file.read_text())
    except FileNotFoundError:
        return False
    if plan["times"] > 1:
        plan_file.write_text(json.dumps(plan | {"times": plan["times"] - 1}))
    else:
        plan_file.unlink()
    return True


# What can be done: each is given the home, the function that was called, and its arguments


def kill(_home: Path, _original: Callable[..., Any], *_args: Any, **_keywords: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(_home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    original(*args, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once_committed(_home: Path, _original: Callable[..., Any], *_args: Any, **_keywords: Any) -> None:
    """As soon as a checkpoint has its row."""
    _LINKS[-1].wait_for_commit(1)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker(home: Path, _original: Callable[..., Any], *_args: Any, **_keywords: Any) -> None:
    os.kill(int(_worker_of(home).read_text()), signal.SIGKILL)
    time.sleep(60)  # it dies before, since its worker is gone


def kill_partly_written(
    eighths: int, _home: Path, original: Callable[..., Any], *args: Any, **keywords: Any
) -> None:
    """Of what writes the file that it is given second."""
    original(*args, **keywords)
    path: Path = args[1]
    os.truncate(path, path.stat().st_size * eighths // 8)
    os.kill(os.getpid(), signal.SIGKILL)


for _eighths in range(8):
    globals()[f"kill_{_eighths}_eighths_written"] = partial(kill_partly_written, _eighths)


def hang(_home: Path, _original: Callable[..., Any], *_args: Any, **_keywords: Any) -> None:
    threading.Event().wait()


def hang_with_words(home: Path, *_args: Any, **_keywords: Any) -> None:
    """With its standard error in a file of the house."""
    descriptor = os.open(home / "stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 2)
    threading.Event().wait()


def slow_here(home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Says that it is here, and takes its time."""
    _place_of(home).touch()
    time.sleep(SLOW_S)
    return original(*args, **keywords)


def wait_aside(home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Says that it is here, and goes on once it was let go; what is tried again comes soon."""
    saving.PAUSE_S = 0.2
    _place_of(home).touch()
    while _place_of(home).exists():
        time.sleep(0.005)
    return original(*args, **keywords)


def long_evaluation(_home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Of 7 s, in batches."""
    training = args[0]
    for _ in range(70):
        time.sleep(0.1)
        training.between()
    return original(*args, **keywords)


def glitch(_home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """A number that is none, once."""
    return original(*args, **keywords) * float("nan")


def wait_for_stop(home: Path, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Says that it is here, and goes on once its child was told to stop."""
    _place_of(home).touch()
    assert _LINKS[-1].wait_for_stop(60)
    return original(*args, **keywords)


def _plan_of(home: Path) -> Path:
    return home / "fault.json"


def _place_of(home: Path) -> Path:
    return home / "here"


def _worker_of(home: Path) -> Path:
    return home / "worker.pid"
