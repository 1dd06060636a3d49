"""Where a training stands, and what its loss is so far."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.nets.objective import loss_sum_and_count
from workers.batches import Batch
from workers.crew import Crew


@dataclass
class Cursor:
    """Where a training stands: `epoch` completed epochs, `batch` batches into the next one, `step` optimizer
    steps in all. `loss_sum` over `loss_count` is the mean loss of this epoch's rows, both on the device.

    `seconds` have been trained, over all attempts. `best` is what early stopping has to beat, which it failed
    to do for `waited` epochs. `ended` says why there is nothing left to do.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0
    ended: str | None = None
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, loss: nn.Module, value: Tensor, batch: Batch) -> None:
        loss_sum, count = loss_sum_and_count(loss, value, batch.targets, batch.rows)
        self.loss_sum += loss_sum
        self.loss_count += count
        self.rows += batch.rows

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.rows = self.epoch + 1, 0, 0
        self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), torch.zeros_like(self.loss_count)

    @property
    def train_loss(self) -> float:
        """The mean over the epoch so far. A host-device sync."""
        return quotient(self.loss_sum, self.loss_count)


class NonFiniteLoss(Exception):
    """The summed loss is no number any more. `batch` is the one where it began, where that is known; `hint`
    says what to do about it."""

    def __init__(self, message: str, batch: Batch | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.batch = batch
        self.hint = hint


def require_finite(cursor: Cursor, crew: Crew | None = None) -> float:
    """The epoch's mean loss so far, over the rows of every rank where the `crew` is asked: all must, at once.
    A host-device sync. Raises NonFiniteLoss."""
    totals = torch.stack([cursor.loss_sum, cursor.loss_count])
    loss_mean = quotient(*(crew.summed(totals) if crew is not None else totals))
    if not math.isfinite(loss_mean):
        where = f"in epoch {cursor.epoch + 1}, by step {cursor.step}"
        raise NonFiniteLoss(f"the training loss became {loss_mean} {where}")
    return loss_mean


def quotient(total: Tensor, count: Tensor) -> float:
    """The one host-device sync of a mean; nan where nothing was counted."""
    loss_sum, loss_count = torch.stack([total, count]).tolist()
    return loss_sum / loss_count if loss_count else math.nan
