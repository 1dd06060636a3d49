"""All that a loop needs: the net and what trains it, as `building.py` puts them together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from core.nets.freezing import Freezing
from core.nets.measures import Measuring
from workers.batches import Batches
from workers.crew import Crew
from workers.limits import Limits


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
    limits: Limits
    device: torch.device
    autocast: torch.dtype | None
    freezing: Freezing = field(default_factory=Freezing)
    monitor: str = "val_loss"
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    average: AveragedModel | None = None
    clip_grad_norm: float | None = None
    pieces: int = 1
    is_careful: bool = False
    between: Callable[[], None] = nothing
    crew: Crew = field(default_factory=Crew)

    @property
    def served(self) -> nn.Module:
        return self.net if self.average is None else self.average.module

    @property
    def rows_at_once(self) -> int | None:
        """At most so many go through the net; None where whole batches do."""
        if self.pieces == 1:
            return None
        return -(-self.train.batch_size // (self.pieces * self.crew.world))
