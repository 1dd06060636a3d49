"""The training loop: a generator of reports. It knows no database, no storage, no Celery.

Whoever iterates decides what to do with a report; stopping is `break`, and `fit` goes on from any yield.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from core.nets.freezing import Freezing, begin_epoch
from core.nets.measures import Measuring
from core.nets.objective import loss_sum_and_count, meet
from modelyard.specs import EarlyStopping
from workers.batches import Batch, Batches
from workers.crew import Crew
from workers.generators import restore_all, state_of_all

# B rows in the batch, C classes or targets

EVERY_EPOCH = "every epoch is done"


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


@dataclass(frozen=True)
class Limits:
    """What ends a training before its last epoch."""

    max_steps: int | None = None
    max_seconds: float | None = None
    early_stopping: EarlyStopping | None = None


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Training:
    """`scheduler` is stepped by `interval`; one that waits for a plateau is told the epoch's `monitor`.

    `average` follows the net's weights; where there is one it is what is validated, saved and served. A batch
    goes through the net in `pieces`. `between` is called at each batch of an evaluation, and may raise to
    leave it. One that is `careful` looks at every loss: a host-device sync a step. Where several processes
    train, `crew` is what they are to each other: all of this is the same in each, but for the batches' rows.
    """

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
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    average: AveragedModel | None = None
    clip_grad_norm: float | None = None
    limits: Limits = field(default_factory=Limits)
    pieces: int = 1
    is_careful: bool = False
    between: Callable[[], None] = nothing
    crew: Crew = field(default_factory=Crew)

    @property
    def served(self) -> nn.Module:
        return self.net if self.average is None else self.average.module


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


class NonFiniteLoss(Exception):
    """The summed loss is no number any more. `batch` is the one where it began, where that is known; `hint`
    says what to do about it."""

    def __init__(self, message: str, batch: Batch | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.batch = batch
        self.hint = hint


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
            pieces = batch.pieces(training.pieces)
            for piece in pieces:
                loss = compute_loss(training, piece, reduces=batch.ends_step and piece is pieces[-1])
                if training.is_careful:
                    require_number(loss, piece, cursor)
                share = weighted(training, loss, piece)
                training.scaler.scale(share).backward()  # type: ignore[no-untyped-call] # torch left it untyped
                losses.append((loss.detach(), piece))
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
        cursor.ended = reason_to_end(training, cursor)
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
    is_sum = getattr(training.loss, "reduction", "mean") == "sum"
    share = training.crew.world if is_sum else batch.share
    return value if share == 1 else value * share


def update(training: Training) -> Tensor | None:
    """One optimizer step with the gradients that there are; their norm where it was needed."""
    grad_norm = None
    training.scaler.unscale_(
        training.optimizer
    )  # before a fused step: who reads gradients after it sees them
    if training.clip_grad_norm is not None:
        grad_norm = clip_grad_norm_(training.net.parameters(), training.clip_grad_norm)
    training.scaler.step(training.optimizer)
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
    move: a step that failed left no trace in it."""
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


def has_improved(stopping: EarlyStopping, value: float, best: float | None) -> bool:
    """What is no number never has."""
    if best is None or not math.isfinite(value):
        return math.isfinite(value)
    gain = best - value if stopping.mode == "min" else value - best
    return gain > stopping.min_delta


def limit_reached(limits: Limits, cursor: Cursor) -> str | None:
    if limits.max_steps is not None and cursor.step >= limits.max_steps:
        return f"max_steps: {cursor.step} steps are done"
    if limits.max_seconds is not None and cursor.seconds >= limits.max_seconds:
        return f"max_seconds: it trained for {cursor.seconds:.1f} s"
    return None


def ends_epoch(training: Training, cursor: Cursor) -> bool:
    """Whether an evaluation follows this step."""
    return cursor.batch == len(training.train) or limit_reached(training.limits, cursor) is not None


def reason_to_end(training: Training, cursor: Cursor) -> str | None:
    """None where another epoch follows."""
    stopping = training.limits.early_stopping
    if stopping is not None and cursor.waited >= stopping.patience:
        waited = f"{stopping.monitor} has not got better than {cursor.best} for {cursor.waited} epochs"
        return f"early_stopping: {waited}"
    if cursor.epoch >= training.epochs:
        return EVERY_EPOCH
    return limit_reached(training.limits, cursor)


def quotient(total: Tensor, count: Tensor) -> float:
    """The one host-device sync of a mean; nan where nothing was counted."""
    loss_sum, loss_count = torch.stack([total, count]).tolist()
    return loss_sum / loss_count if loss_count else math.nan


def evaluate(training: Training, batches: Batches, prefix: str) -> dict[str, float]:
    """`<prefix>_loss` and the measures over all rows: summed, counted, divided once."""
    net = training.served.eval()
    loss_sum, loss_count = torch.zeros(2, dtype=torch.float64, device=training.device)
    measures = training.measures(training.device)
    with torch.inference_mode():
        for batch in batches.in_order():
            with torch.autocast(
                training.device.type, training.autocast, enabled=training.autocast is not None
            ):
                outputs = net(*batch.inputs)
                value = training.loss(outputs, meet(outputs, batch.targets))
            batch_sum, count = loss_sum_and_count(training.loss, value, batch.targets, batch.rows)
            loss_sum += batch_sum
            loss_count += count
            measures.add(outputs, batch.targets)
            training.between()
    values = {"loss": quotient(loss_sum, loss_count), **measures.compute()}
    return {f"{prefix}_{name}": value for name, value in values.items()}


def require_finite(cursor: Cursor, crew: Crew | None = None) -> float:
    """The epoch's mean loss so far, over the rows of every rank where the `crew` is asked: all must, at once.
    A host-device sync. Raises NonFiniteLoss."""
    totals = torch.stack([cursor.loss_sum, cursor.loss_count])
    loss_mean = quotient(*(crew.summed(totals) if crew is not None else totals))
    if not math.isfinite(loss_mean):
        where = f"in epoch {cursor.epoch + 1}, by step {cursor.step}"
        raise NonFiniteLoss(f"the training loss became {loss_mean} {where}")
    return loss_mean


def state_of(training: Training, cursor: Cursor) -> dict[str, Any]:
    """All that going on from here needs beside the weights that are served: tensors and plain values only,
    not copied."""
    return {
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict() if training.scheduler is not None else None,
        "scaler": training.scaler.state_dict(),
        "net": training.net.state_dict() if training.average is not None else None,
        "averaged": training.average.n_averaged if training.average is not None else None,
        "pieces": training.pieces,
        "cursor": dict(vars(cursor)),
        "ranks": training.crew.gathered(own_state_of(training, cursor)),
    }


def restore(training: Training, state: dict[str, Any]) -> Cursor:
    """After `training.net` was given the weights that were served."""
    training.optimizer.load_state_dict(state["optimizer"])
    if training.scheduler is not None:
        training.scheduler.load_state_dict(state["scheduler"])
    training.scaler.load_state_dict(state["scaler"])
    if training.average is not None:
        training.average.module.load_state_dict(training.net.state_dict())
        training.average.n_averaged.copy_(state["averaged"])
        training.net.load_state_dict(state["net"])
    cursor = Cursor(**state["cursor"])
    restore_own(training, cursor, state["ranks"])
    return cursor


def own_state_of(training: Training, cursor: Cursor) -> dict[str, Any]:
    """What each rank has for itself."""
    sums = torch.stack([cursor.loss_sum, cursor.loss_count]).cpu()
    return {"sums": sums, "generators": state_of_all(training.device)}


def restore_own(training: Training, cursor: Cursor, ranks: list[dict[str, Any]]) -> None:
    """With another number of ranks than before the first goes on with all that was counted, and the
    generators of ranks that are new stay as they were seeded."""
    rank, device = training.crew.rank, training.device
    if training.crew.world != len(ranks):
        totals = torch.stack([own["sums"] for own in ranks]).sum(dim=0)
        sums = totals if rank == 0 else torch.zeros_like(totals)
    else:
        sums = ranks[rank]["sums"]
    cursor.loss_sum, cursor.loss_count = sums.to(device).unbind()
    if rank < len(ranks):
        restore_all(ranks[rank]["generators"], device)
