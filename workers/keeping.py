"""When a training saves a checkpoint."""

import math
from typing import Any

from modelyard.specs import CheckpointPolicy
from workers.cursor import Cursor


class Keeping:
    """Every so many epochs, steps or minutes, and at the end. What counts in steps or minutes saves an epoch
    that is the best so far as well, since only an epoch's end is measured on the validation split."""

    def __init__(self, policy: CheckpointPolicy, cursor: Cursor) -> None:
        self._policy = policy
        self._saved_step = cursor.step
        self._saved_at_s = cursor.seconds
        self._best: float | None = None

    def is_news(self, cursor: Cursor) -> bool:
        return cursor.step > self._saved_step

    def is_due_at_step(self, cursor: Cursor) -> bool:
        """Not asked where the epoch ends with this step: it is saved once measured."""
        policy = self._policy
        if policy.every_steps is not None:
            return cursor.step % policy.every_steps == 0
        if policy.every_minutes is not None:
            return cursor.seconds - self._saved_at_s >= policy.every_minutes * 60
        return False

    def is_due_at_epoch(self, cursor: Cursor, metrics: dict[str, float]) -> bool:
        if cursor.ended is not None:
            return True
        if self._policy.every_epochs is not None:
            return cursor.epoch % self._policy.every_epochs == 0
        is_best = self._is_best(metrics[self._policy.monitor])
        return is_best or self.is_due_at_step(cursor)

    def saved(self, cursor: Cursor) -> None:
        self._saved_step, self._saved_at_s = cursor.step, cursor.seconds

    @property
    def state(self) -> dict[str, Any]:
        """What a later attempt has to know beside the cursor."""
        return {"best": self._best}

    def restore(self, state: dict[str, Any]) -> None:
        self._best = state.get("best")

    def _is_best(self, value: float) -> bool:
        """What is no number never is."""
        sign = 1 if self._policy.mode == "min" else -1
        is_best = math.isfinite(value) and (self._best is None or sign * value < sign * self._best)
        self._best = value if is_best else self._best
        return is_best
