"""How long a job trains, and how the two ways of counting it, epochs and steps, go over into each other."""

from typing import Literal

from msgspec import Struct

Interval = Literal["epoch", "step"]


class Clock(Struct, frozen=True):
    epochs: int
    steps_per_epoch: int

    def total(self, interval: Interval) -> int:
        """How often a schedule of this interval is stepped."""
        return self.epochs if interval == "epoch" else self.epochs * self.steps_per_epoch

    def read(self, count: int, interval: Interval) -> tuple[int, int]:
        """(epoch, step) once a schedule was stepped `count` times. Both are completed ones: an epoch that
        has begun doesn't count."""
        if interval == "epoch":
            return count, count * self.steps_per_epoch
        return count // self.steps_per_epoch, count
