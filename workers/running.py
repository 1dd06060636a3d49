"""How a training runs inside its attempt: what it reports, when it saves, how it stops, and what it does
where a batch is too large for the device."""

import dataclasses
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core.nets import artifacts
from core.nets.freezing import begin_epoch
from modelyard.specs import JobSpec
from workers import messages, registration, trainer
from workers.keeping import Keeping
from workers.link import Link
from workers.messages import Noted, Started
from workers.registration import Data
from workers.saving import Saver, Snapshot
from workers.trainer import Cursor, EpochEnded, Stepped, Training

REPORT_EVERY_S = 0.25


class Interrupted(Exception):
    """A Stop came between two steps: in an evaluation, or while the data is read."""


class Running:
    """`training` is replaced where a batch has to go through in smaller pieces."""

    def __init__(
        self,
        link: Link,
        spec: JobSpec,
        resolved: dict[str, Any],
        training: Training,
        cursor: Cursor,
        data: Data,
        scratch: Path,
    ) -> None:
        self.link, self.spec, self.resolved = link, spec, resolved
        self.training, self.cursor, self.data = training, cursor, data
        self.saver = Saver(link, scratch)
        self.keeping = Keeping(spec.trainer.checkpoint, cursor)
        self.metrics: dict[str, float] = {}
        self.first_step, self.began = cursor.step, time.monotonic()
        self.reported_at = 0.0

    def follow(self, stages_ms: dict[str, float], born: float) -> bool:
        """Until the training has ended and all it saved is committed. False where a Stop came first."""
        cursor = self.cursor
        try:
            for report in self._steps():
                match report:
                    case Stepped():
                        if cursor.step == self.first_step + 1:
                            stages_ms["first_step"] = round((time.monotonic() - born) * 1000, 1)
                            steps = self.total_steps
                            self.link.send(Started(self.resolved, cursor.step, steps, time.time(), stages_ms))
                        self._report_now_and_then()
                        is_due = self.keeping.is_due_at_step(cursor)
                        if is_due and not trainer.ends_epoch(self.training, cursor):
                            self._save()
                    case EpochEnded(metrics):
                        self.metrics = metrics
                        self.link.send(messages.EpochEnded(cursor.epoch, cursor.step, metrics))
                        if self.keeping.is_due_at_epoch(cursor, metrics):
                            self._save()
                if self.link.stop is not None:
                    raise Interrupted
        except Interrupted:
            self._leave()
            return False
        self.saver.wait()
        return True

    @property
    def total_steps(self) -> int:
        """An upper bound: the training may end before."""
        steps = self.training.train.steps * self.training.epochs
        limit = self.training.limits.max_steps
        return steps if limit is None else min(steps, limit)

    def _steps(self) -> Iterator[Stepped | EpochEnded]:
        """`fit`, in smaller pieces where the device has no room for a whole batch."""
        while True:
            try:
                yield from trainer.fit(self.training, self.cursor)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._halve():
                    raise

    def _halve(self) -> bool:
        """False where a piece is one row already. The effective batch stays; batch norm sees the pieces."""
        training, size = self.training, self.training.train.batch_size
        if training.pieces >= size:
            return False
        self.training = dataclasses.replace(training, pieces=training.pieces * 2)
        training.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
        rows = -(-size // self.training.pieces)
        message = f"a batch of {size} rows does not fit; it goes through in pieces of {rows}, as one step"
        self.link.send(
            Noted("out_of_memory", {"message": message, "rows_at_once": rows, "step": self.cursor.step})
        )
        return True

    def _save(self) -> None:
        """Copies weights and state; a thread writes them. Waits where the save before is not committed."""
        training, cursor = self.training, self.cursor
        metrics = self.metrics if not cursor.rows else {"train_loss": trainer.require_finite(cursor)}
        state = artifacts.copied(trainer.state_of(training, cursor))
        state["golden"] = registration.golden_outputs(training, self.data)
        begin_epoch(training.net, training.freezing, cursor.epoch)  # the golden samples are seen in eval mode
        weights = artifacts.plain_state_dict(training.served)
        self.saver.save(Snapshot(cursor.epoch, cursor.step, metrics, weights, state))
        self.keeping.saved(cursor)

    def _leave(self) -> None:
        """With a checkpoint of where the training stands, if that was asked for and is new."""
        stop = self.link.stop
        if stop is not None and stop.save and self.keeping.is_news(self.cursor):
            self._save()
        self.saver.wait()

    def _report_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self.reported_at < REPORT_EVERY_S:
            return
        self.reported_at = now
        cursor, steps = self.cursor, self.total_steps
        per_second = (cursor.step - self.first_step) / max(now - self.began, 1e-9)
        loss_mean = trainer.require_finite(cursor)
        self.link.send(
            messages.Stepped(
                epoch=cursor.epoch,
                step=cursor.step,
                metrics={"train_loss": loss_mean},
                samples_per_second=per_second * self.training.train.batch_size * self.spec.trainer.accumulate,
                eta_seconds=(steps - cursor.step) / per_second,
            )
        )


def is_out_of_memory(error: Exception) -> bool:
    """On a GPU torch has an error of its own for it; on the CPU its allocator says so in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
