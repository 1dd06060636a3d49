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
from torch.optim.lr_scheduler import LRScheduler

from core.nets.measures import Measures
from workers.loaders import Batch, Batches

# B rows in the batch, C classes or targets


@dataclass
class Cursor:
    """Where a training stands: `epoch` completed epochs, `batch` batches into the next one, `step`
    optimizer steps in all. `loss_sum` is over this epoch's rows, on the device."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    @property
    def train_loss(self) -> float:
        """The mean over the epoch so far. A host-device sync."""
        return self.loss_sum.item() / max(1, self.rows)


@dataclass(frozen=True)
class Training:
    net: nn.Module
    loss: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    interval: Literal["epoch", "step"]
    train: Batches
    validation: Batches
    measures: type[Measures]
    epochs: int
    device: torch.device
    autocast: torch.dtype | None


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
    while cursor.epoch < training.epochs:
        net.train()
        for batch in training.train.of_epoch(cursor.epoch, cursor.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = compute_loss(training, batch)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves Tensor.backward untyped
            optimizer.step()
            if scheduler is not None and training.interval == "step":
                scheduler.step()
            cursor.loss_sum += summed(training.loss, loss.detach(), batch.rows)
            cursor.rows += batch.rows
            cursor.batch += 1
            cursor.step += 1
            yield Stepped()
        metrics = {"train_loss": require_finite(cursor)} | evaluate(training, training.validation, "val")
        if scheduler is not None and training.interval == "epoch":
            scheduler.step()
        cursor.epoch, cursor.batch, cursor.rows = cursor.epoch + 1, 0, 0
        cursor.loss_sum = torch.zeros_like(cursor.loss_sum)
        yield EpochEnded(metrics)


def compute_loss(training: Training, batch: Batch) -> Tensor:
    """What is minimised: the mean over the rows of a batch, or their sum where the spec says so."""
    with torch.autocast(training.device.type, training.autocast, enabled=training.autocast is not None):
        outputs = training.net(batch.inputs)
        targets = shape_targets(outputs, batch.targets)
        loss: Tensor = training.loss(outputs, targets)
    return loss


def summed(loss: nn.Module, value: Tensor, rows: int) -> Tensor:
    """The loss summed over the rows, from what the loss module gave: its mean, or already its sum."""
    return value.double() if getattr(loss, "reduction", "mean") == "sum" else value.double() * rows


def shape_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """A regression's targets take the shape of the outputs; the plan has checked that counts agree."""
    return targets if targets.dtype == torch.int64 else targets.reshape(outputs.shape)


def evaluate(training: Training, batches: Batches, prefix: str) -> dict[str, float]:
    """`<prefix>_loss` and the measures over all rows: summed, counted, divided once."""
    training.net.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=training.device)
    measures = training.measures(training.device)
    rows = 0
    with torch.inference_mode():
        for batch in batches.in_order():
            with torch.autocast(
                training.device.type, training.autocast, enabled=training.autocast is not None
            ):
                outputs = training.net(batch.inputs)
                targets = shape_targets(outputs, batch.targets)
                loss_sum += summed(training.loss, training.loss(outputs, targets), batch.rows)
            measures.add(outputs, targets)
            rows += batch.rows
    # The one host-device sync of an evaluation.
    values = {"loss": loss_sum.item() / max(1, rows), **measures.compute()}
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
