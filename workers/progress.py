"""Everything that going on with a training needs, as a checkpoint keeps it."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from workers.cursor import Cursor
from workers.generators import restore_all, state_of_all
from workers.training import Training


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
    lay_out(training.optimizer)
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


def lay_out(optimizer: Optimizer) -> None:
    """What an optimizer keeps of a parameter lies in memory as the parameter does: a fused step walks both
    side by side, and files are contiguous where images' weights are channels_last."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                like = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                kept[name] = like.copy_(value)


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
