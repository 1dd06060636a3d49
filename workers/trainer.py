"""The training loop: a generator of reports. It knows no database, no storage, no Celery.

Whoever iterates decides what to do with a report; stopping is `break`, and `fit` goes on from any yield.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from core.nets.freezing import begin_epoch
from core.nets.objective import is_sum, meet
from workers.batches import Batch
from workers.cursor import Cursor, NonFiniteLoss, require_finite
from workers.evaluating import evaluate
from workers.limits import has_improved, limit_reached, reason_to_end
from workers.training import Training


@dataclass(frozen=True)
class Stepped:
    """One optimizer step is done; nothing was read back from the device. `batch` is the last that went into
    it, `grad_norm` that of its gradients before they were clipped: None where they are not."""

    batch: Batch
    grad_norm: Tensor | None = None


@dataclass(frozen=True)
class EpochEnded:
    """`train_loss`, `val_loss`, `val_<measure>` of the epoch that `cursor.epoch` now counts, or of the part
    of one after which `cursor.ended`."""

    metrics: dict[str, float]


class NoRoom(MemoryError):
    """The optimizer's own state does not fit beside the net, however few rows go through it at once."""


def fit(training: Training, cursor: Cursor) -> Iterator[Stepped | EpochEnded]:
    """Trains from `cursor`, which moves along, until it has `ended`.

    Raises NonFiniteLoss at the end of the epoch in which the loss stopped being a number, or at once where
    the training is careful.
    """
    cursor.loss_sum, cursor.loss_count = (x.to(training.device) for x in (cursor.loss_sum, cursor.loss_count))
    crew = training.crew
    while cursor.ended is None:
        begin_epoch(training.net, training.freezing, cursor.epoch)
        crew.begin_epoch(training.net)
        began, losses = time.monotonic() - cursor.seconds, list[tuple[Tensor, Batch]]()
        batches = training.train.of_epoch(cursor.epoch, cursor.batch)
        for place, batch in enumerate(batches, cursor.batch):
            if batch.begins_step:
                if limit_reached(training.limits, cursor):
                    break
                training.optimizer.zero_grad(set_to_none=True)
                losses = []
            pieces = batch.pieces(training.rows_at_once)
            for piece in pieces:
                loss = compute_loss(training, piece, reduces=batch.ends_step and piece is pieces[-1])
                if training.is_careful:
                    require_number(loss, piece, cursor)
                share = weighted(training, loss, piece)
                training.scaler.scale(share).backward()  # type: ignore[no-untyped-call] # torch left it untyped
                losses.append((loss.detach(), replace(piece, inputs=())))  # inputs of a window are many
            if batch.ends_step:
                grad_norm = update(training)
                move_on(training, cursor, losses, place + 1)
                cursor.seconds = crew.agree(time.monotonic() - began)
                yield Stepped(batch, grad_norm)
        metrics = {"train_loss": require_finite(cursor, crew)}
        metrics |= crew.from_first(lambda: evaluate(training, training.validation, "val"))
        if cursor.batch == len(training.train):
            end_epoch(training, cursor, metrics)
        cursor.seconds = crew.agree(time.monotonic() - began)
        cursor.ended = reason_to_end(training.limits, cursor)
        yield EpochEnded(metrics)


def compute_loss(training: Training, batch: Batch, *, reduces: bool) -> Tensor:
    """What is minimised: the mean over the rows of a batch, or their sum where the spec says so. The backward
    pass of one that `reduces` is the step's last."""
    with torch.autocast(training.device.type, training.autocast, enabled=training.autocast is not None):
        outputs = training.crew.forward(training.net, batch.inputs, reduces=reduces)
        loss: Tensor = training.loss(outputs, meet(outputs, batch.targets))
    return loss


def weighted(training: Training, value: Tensor, batch: Batch) -> Tensor:
    """What a batch adds to the loss of its step: its part of a mean; a sum adds up by itself, but for the
    mean that is taken over the ranks."""
    share = training.crew.world if is_sum(training.loss) else batch.share
    return value if share == 1 else value * share


def update(training: Training) -> Tensor | None:
    """One optimizer step with the gradients that there are; their norm where it was needed. Raises NoRoom."""
    grad_norm = None
    # Before a fused step, so that who reads gradients after it sees them.
    training.scaler.unscale_(training.optimizer)
    if training.clip_grad_norm is not None:
        grad_norm = clip_grad_norm_(training.net.parameters(), training.clip_grad_norm)
    try:
        training.scaler.step(training.optimizer)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise NoRoom(str(error)) from error
        raise
    training.scaler.update()
    if training.scheduler is not None and training.interval == "step":
        training.scheduler.step()
    if training.average is not None:
        training.average.update_parameters(training.net)
    return grad_norm


def require_number(loss: Tensor, batch: Batch, cursor: Cursor) -> None:
    """Before the step that it would spoil. A host-device sync. Raises NonFiniteLoss."""
    if not loss.isfinite():
        where = f"in epoch {cursor.epoch + 1}, at step {cursor.step + 1}"
        raise NonFiniteLoss(f"the training loss became {loss.item()} {where}", batch)


def move_on(training: Training, cursor: Cursor, losses: list[tuple[Tensor, Batch]], batch: int) -> None:
    """Counts a step that is done, and the epoch's first `batch` batches with it. Only here does the cursor
    move: a step that failed is as if it had not begun, but for the statistics of a batch norm."""
    for loss, piece in losses:
        cursor.add(training.loss, loss, piece)
    cursor.batch = batch
    cursor.step += 1


def end_epoch(training: Training, cursor: Cursor, metrics: dict[str, float]) -> None:
    """Steps a schedule that counts epochs, and what early stopping waits for."""
    if training.interval == "epoch":
        match training.scheduler:
            case ReduceLROnPlateau() as waiting:
                waiting.step(metrics[training.monitor])
            case LRScheduler() as counting:
                counting.step()
    stopping = training.limits.early_stopping
    if stopping is not None:
        value = metrics[stopping.monitor]
        is_better = has_improved(stopping, value, cursor.best)
        cursor.best, cursor.waited = (value, 0) if is_better else (cursor.best, cursor.waited + 1)
    cursor.next_epoch()


def is_out_of_memory(error: Exception) -> bool:
    """On a GPU torch has an error of its own for it; on the CPU its allocator says so in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def ends_epoch(training: Training, cursor: Cursor) -> bool:
    """Whether an evaluation follows this step."""
    return cursor.batch == len(training.train) or limit_reached(training.limits, cursor) is not None
