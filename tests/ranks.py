"""One attempt with real processes and no database: what the supervisor answers them, and no more."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from torch import Tensor

from core.nets import artifacts
from tests.attempts import Data, attempt_of
from workers import ranks
from workers.children import Child
from workers.messages import (
    AnyReport,
    Committed,
    Failed,
    Order,
    Register,
    Resume,
    Saved,
    Stopped,
    TooLarge,
    Trained,
    Verified,
    WentAstray,
)
from workers.ranks import Ranks

LAST_WORDS = Verified | Stopped | Failed | WentAstray | TooLarge


def order_of(spec: dict[str, Any], data: Data, folder: Path, devices: int) -> Order:
    """A first order on the CPU; what it saves stays in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = spec.get("trainer", {}) | {"devices": devices}
    attempt = attempt_of(spec | {"trainer": trainer}, *data(), folder)
    return replace(attempt.order, world=devices)


start = ranks.start


def run(order: Order, heard: Callable[[AnyReport, Child | Ranks], None] | None = None) -> list[AnyReport]:
    """All reports, until one is the last or a process is dead. `heard` may interfere at each."""
    child = ranks.start(order)
    reports: list[AnyReport] = []
    try:
        while not reports or not isinstance(reports[-1], LAST_WORDS):
            child.wait(10)
            was_alive = child.alive
            for report in child.reports():
                reports.append(report)
                if heard is not None:
                    heard(report, child)
                if isinstance(report, Saved):
                    child.tell(Committed(report.step))
                elif isinstance(report, Trained):
                    saved = last(reports, Saved)
                    child.tell(Register(saved.weights.path, saved.state.path))
            if not was_alive:
                break
        return reports
    finally:
        child.end()


def last(reports: list[AnyReport], kind: Any) -> Any:
    return [report for report in reports if isinstance(report, kind)][-1]


def resumed(order: Order, reports: list[AnyReport], folder: Path) -> Order:
    """The order of an attempt that goes on from what was saved last."""
    saved = last(reports, Saved)
    return replace(order, resume=Resume(saved.weights.path, saved.state.path), scratch=str(folder))


def weights(reports: list[AnyReport]) -> dict[str, Tensor]:
    """Those saved last."""
    found: dict[str, Tensor] = artifacts.load(Path(last(reports, Saved).weights.path))
    return found


def kill(child: Child | Ranks, rank: int) -> None:
    process = (child._children[rank] if isinstance(child, Ranks) else child).process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
