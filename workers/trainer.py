"""The training loop: a generator of reports. It knows no database, no storage, no Celery.

Whoever iterates decides what to do with a report; stopping is `break`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from core.nets.freezing import Freezing, begin_epoch
from core.nets.measures import Measuring
from core.nets.objective import loss_sum_and_count, meet
from workers.loaders import Batch, Batches

# B rows in the batch, C classes or targets


@dataclass
class Cursor:
    """Where a training stands: `epoch` completed epochs, `batch` batches into the next one, `step`
    optimizer steps in all. `loss_sum` over `loss_count` is the mean loss of this epoch's rows, both on the
    device."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, loss: nn.Module, value: Tensor, batch: Batch) -> None:
        loss_sum, count = loss_sum_and_count(loss, value, batch.targets, batch.rows)
        self.loss_sum += loss_sum
        self.loss_count += count
        self.rows += batch.rows

    @property
    def train_loss(self) -> float:
        """The mean over the epoch so far. A host-device sync."""
        return quotient(self.loss_sum, self.loss_count)


@dataclass(frozen=True)
class Training:
    """`scheduler` is stepped by `interval`; one that waits for a plateau is told the epoch's `monitor`."""

    net: nn.Module
    loss: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    interval: Literal["epoch", "step"]
    train: Batches
    validation: Batches
    measures: Measuring
    epochs: int
    device: torch.device
    autocast: torch.dtype | None
    freezing: Freezing = field(default_factory=Freezing)
    monitor: str = "val_loss"


@dataclass(frozen=True)
class Stepped:
    """One optimizer step is done; nothing was read back from the device."""


@dataclass(frozen=True)
class EpochEnded:
    """`train_loss`, `val_loss`, `val_<measure>` of the epoch that `cursor.epoch` now counts."""

    metrics: dict[str, float]


class NonFiniteLoss(Exception):
    """The summed loss is no number any more."""


def fit(training: Training, cursor: Cursor) -> Iterator[Stepped | EpochEnded]:
    """Trains from `cursor`, which moves along, to the last epoch.

    Raises NonFiniteLoss at the end of the epoch in which the loss stopped being a number.
    """
    net, optimizer, scheduler = training.net, training.optimizer, training.scheduler
    cursor.loss_sum = cursor.loss_sum.to(training.device)
    cursor.loss_count = cursor.loss_count.to(training.device)
    while cursor.epoch < training.epochs:
        begin_epoch(net, training.freezing, cursor.epoch)
        for batch in training.train.of_epoch(cursor.epoch, cursor.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = compute_loss(training, batch)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves Tensor.backward untyped
            optimizer.step()
            if scheduler is not None and training.interval == "step":
                scheduler.step()
            cursor.add(training.loss, loss.detach(), batch)
            cursor.batch += 1
            cursor.step += 1
            yield Stepped()
        metrics = {"train_loss": require_finite(cursor)} | evaluate(training, training.validation, "val")
        if training.interval == "epoch":
            end_epoch(training, metrics)
        cursor.epoch, cursor.batch, cursor.rows = cursor.epoch + 1, 0, 0
        cursor.loss_sum = torch.zeros_like(cursor.loss_sum)
        cursor.loss_count = torch.zeros_like(cursor.loss_count)
        yield EpochEnded(metrics)


def end_epoch(training: Training, metrics: dict[str, float]) -> None:
    """Steps a schedule that counts epochs."""
    match training.scheduler:
        case ReduceLROnPlateau() as waiting:
            waiting.step(metrics[training.monitor])
        case LRScheduler() as counting:
            counting.step()


def compute_loss(training: Training, batch: Batch) -> Tensor:
    """What is minimised: the mean over the rows of a batch, or their sum where the spec says so."""
    with torch.autocast(training.device.type, training.autocast, enabled=training.autocast is not None):
        outputs = training.net(*batch.inputs)
        loss: Tensor = training.loss(outputs, meet(outputs, batch.targets))
    return loss


def quotient(total: Tensor, count: Tensor) -> float:
    """The one host-device sync of a mean; nan where nothing was counted."""
    loss_sum, loss_count = torch.stack([total, count]).tolist()
    return loss_sum / loss_count if loss_count else math.nan


def evaluate(training: Training, batches: Batches, prefix: str) -> dict[str, float]:
    """`<prefix>_loss` and the measures over all rows: summed, counted, divided once."""
    training.net.eval()
    loss_sum, loss_count = torch.zeros(2, dtype=torch.float64, device=training.device)
    measures = training.measures(training.device)
    with torch.inference_mode():
        for batch in batches.in_order():
            with torch.autocast(
                training.device.type, training.autocast, enabled=training.autocast is not None
            ):
                outputs = training.net(*batch.inputs)
                value = training.loss(outputs, meet(outputs, batch.targets))
            batch_sum, count = loss_sum_and_count(training.loss, value, batch.targets, batch.rows)
            loss_sum += batch_sum
            loss_count += count
            measures.add(outputs, batch.targets)
    values = {"loss": quotient(loss_sum, loss_count), **measures.compute()}
    return {f"{prefix}_{name}": value for name, value in values.items()}


def require_finite(cursor: Cursor) -> float:
    """The epoch's mean loss so far. A host-device sync. Raises NonFiniteLoss."""
    loss_mean = cursor.train_loss
    if not math.isfinite(loss_mean):
        where = f"in epoch {cursor.epoch + 1}, by step {cursor.step}"
        raise NonFiniteLoss(f"the training loss became {loss_mean} {where}")
    return loss_mean


def state_of(training: Training, cursor: Cursor) -> dict[str, Any]:
    """All that going on from here needs beside the weights: tensors and plain values only."""
    return {
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict() if training.scheduler is not None else None,
        "cursor": {
            "epoch": cursor.epoch,
            "batch": cursor.batch,
            "step": cursor.step,
            "rows": cursor.rows,
            "loss_sum": cursor.loss_sum.cpu(),
            "loss_count": cursor.loss_count.cpu(),
        },
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if training.device.type == "cuda" else [],
    }


def restore(training: Training, state: dict[str, Any]) -> Cursor:
    training.optimizer.load_state_dict(state["optimizer"])
    if training.scheduler is not None:
        training.scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] and training.device.type == "cuda":
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return Cursor(**state["cursor"])
