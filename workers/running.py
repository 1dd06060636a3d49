"""How a training runs inside its attempt: what it reports, when it saves, how it stops, and what it does
where a batch is too large for the device."""

import dataclasses
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core.fault_points import reach
from core.nets import artifacts
from core.nets.freezing import begin_epoch
from modelyard.specs import JobSpec
from workers import messages, progress, registration, trainer
from workers.board.board import Board
from workers.cursor import Cursor, require_finite
from workers.keeping import Keeping
from workers.link import Link
from workers.messages import Noted, Started
from workers.registration import Data
from workers.reporting import Reporting, total_steps
from workers.saving import Saver, Snapshot
from workers.trainer import EpochEnded, NoRoom, Stepped
from workers.training import Training


class Interrupted(Exception):
    """A Stop came between two steps: in an evaluation, or while the data is read."""


class TooLarge(Exception):
    """A batch does not fit: all ranks begin again, with batches in so many pieces. `data` are the event's."""

    def __init__(self, pieces: int, data: dict[str, Any]) -> None:
        super().__init__(data["message"])
        self.pieces, self.data = pieces, data


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
        board: Board,
    ) -> None:
        self.link, self.spec, self.resolved = link, spec, resolved
        self.training, self.cursor, self.data = training, cursor, data
        self.saver = Saver(link, scratch)
        self.keeping = Keeping(spec.trainer.checkpoint, cursor)
        self.board = board
        self.first_step = cursor.step
        self.reporting = Reporting(spec.trainer.log_every_steps, epoch_rows=cursor.rows)

    def follow(self, stages_ms: dict[str, float], born: float) -> None:
        """Until the training has ended and all it saved is committed. Raises Interrupted where a Stop came
        first."""
        cursor = self.cursor
        try:
            for report in self._steps():
                match report:
                    case Stepped() as step:
                        reach("child.step")
                        if cursor.step == self.first_step + 1:
                            stages_ms["first_step"] = round((time.monotonic() - born) * 1000, 1)
                            steps = total_steps(self.training)
                            self.link.send(Started(self.resolved, cursor.step, steps, time.time(), stages_ms))
                        self._report(step)
                        is_due = self.keeping.is_due_at_step(cursor)
                        if is_due and not trainer.ends_epoch(self.training, cursor):
                            self._save({"train_loss": require_finite(cursor, self.training.crew)})
                    case EpochEnded(metrics):
                        self.link.send(messages.EpochEnded(cursor.epoch, cursor.step, metrics))
                        if self.keeping.is_due_at_epoch(cursor, metrics):
                            self._save(metrics)
                        self.board.epoch_ended(self.training, cursor, metrics)
                        self.reporting.epoch_ended()
                if self.training.crew.stop is not None:
                    raise Interrupted
            self.board.trained(self.training, cursor, self.data)
        except Interrupted:
            self._leave()
            raise
        if not self.saver.wait():
            raise Interrupted

    def _steps(self) -> Iterator[Stepped | EpochEnded]:
        """`fit`, in smaller pieces where the device has no room for a whole batch."""
        while True:
            try:
                yield from trainer.fit(self.training, self.cursor)
                return
            except NoRoom:
                raise
            except (RuntimeError, MemoryError) as error:
                if not trainer.is_out_of_memory(error) or self.training.rows_at_once == 1:
                    raise
            self._halve()  # here nothing holds on to what the failed step had made

    def _halve(self) -> None:
        """The effective batch stays; batch norm sees the pieces. Raises TooLarge where there are other ranks,
        which wait for this one in the middle of the step."""
        training, size = self.training, self.training.train.batch_size
        validation = training.validation
        halved = dataclasses.replace(
            training,
            pieces=training.pieces * 2,
            validation=dataclasses.replace(validation, batch_size=-(-validation.batch_size // 2)),
        )
        rows = halved.rows_at_once
        message = f"a batch of {size} rows does not fit; it goes through in pieces of {rows}, as one step"
        data = {"message": message, "rows_at_once": rows, "step": self.cursor.step}
        if training.crew.world > 1:
            raise TooLarge(halved.pieces, data)
        self.training = halved
        training.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
        self.link.send(Noted("out_of_memory", data))

    def _save(self, metrics: dict[str, float]) -> None:
        """Copies weights and state; a thread writes them. Waits where the save before is not committed, so
        that there is one copy at a time."""
        training, cursor = self.training, self.cursor
        if not training.crew.from_first(self.saver.wait):
            raise Interrupted
        self.keeping.saved(cursor)
        state = progress.state_of(training, cursor)  # every rank gives its part, the first saves it
        if training.crew.rank > 0:
            return
        state = artifacts.copied(state)
        state["keeping"] = self.keeping.state
        state["golden"] = registration.golden_outputs(training, self.data)
        begin_epoch(training.net, training.freezing, cursor.epoch)  # the golden samples are seen in eval mode
        weights = artifacts.plain_state_dict(training.served)
        parameters = frozenset(name for name, _ in training.net.named_parameters())
        self.saver.save(Snapshot(cursor.epoch, cursor.step, metrics, weights, state, parameters))

    def _leave(self) -> None:
        """With a checkpoint of where the training stands, if that was asked for and is new."""
        cursor, crew = self.cursor, self.training.crew
        crew.agree(cursor.seconds)  # a Stop in the middle of an evaluation: only the first rank heard it
        stop = crew.stop
        if stop is None or not stop.save:
            return  # what is being written is of no use any more
        if self.keeping.is_news(cursor):
            self._save({"train_loss": require_finite(cursor, crew)} if cursor.rows else {})
        self.saver.wait()

    def _report(self, step: Stepped) -> None:
        """Where one is due."""
        report = self.reporting.stepped(self.training, self.cursor, step)
        if report is not None:
            self.link.send(report)
        self.board.stepped(self.cursor, step, report.metrics if report is not None else {})
