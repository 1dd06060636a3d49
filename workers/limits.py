"""When a training ends, and why."""

import math
from dataclasses import dataclass

from modelyard.specs import EarlyStopping
from workers.cursor import Cursor

EVERY_EPOCH = "every epoch is done"


@dataclass(frozen=True)
class Limits:
    """What ends a training: its last epoch, or something before."""

    epochs: int
    max_steps: int | None = None
    max_seconds: float | None = None
    early_stopping: EarlyStopping | None = None


def reason_to_end(limits: Limits, cursor: Cursor) -> str | None:
    """None where another epoch follows."""
    stopping = limits.early_stopping
    if stopping is not None and cursor.waited >= stopping.patience:
        waited = f"{stopping.monitor} has not got better than {cursor.best} for {cursor.waited} epochs"
        return f"early_stopping: {waited}"
    if cursor.epoch >= limits.epochs:
        return EVERY_EPOCH
    return limit_reached(limits, cursor)


def limit_reached(limits: Limits, cursor: Cursor) -> str | None:
    if limits.max_steps is not None and cursor.step >= limits.max_steps:
        return f"max_steps: {cursor.step} steps are done"
    if limits.max_seconds is not None and cursor.seconds >= limits.max_seconds:
        return f"max_seconds: it trained for {cursor.seconds:.1f} s"
    return None


def has_improved(stopping: EarlyStopping, value: float, best: float | None) -> bool:
    """What is no number never has."""
    if best is None or not math.isfinite(value):
        return math.isfinite(value)
    gain = best - value if stopping.mode == "min" else value - best
    return gain > stopping.min_delta
