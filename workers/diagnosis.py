"""Why a loss became no number: the parameter or the layer where it began, and the rows that bring it about.

Asked once, of the batch at which a careful training stopped, before it spoilt any weights.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from core.data.manifest import Manifest
from core.nets.objective import meet
from workers import trainer
from workers.batches import Batch
from workers.crew import Crew
from workers.cursor import NonFiniteLoss
from workers.training import Training

# B rows in the batch

#: Rows that a message names.
MAX_ROWS = 10

LOWER = "lower the learning rate, or set trainer.clip_grad_norm"
MEND = "mend these rows or leave them out, or bound them with a step of prepare or transforms"


def explained(error: NonFiniteLoss, training: Training, manifest: Manifest) -> NonFiniteLoss:
    """The error with what was found. Where no batch is known, only the weights are looked at."""
    parts, hint, batch = [str(error)], LOWER, error.batch
    parameter = spoilt_parameter(training.net)
    if parameter is not None:
        parts.append(f"the parameter {parameter} is not finite already")
    if batch is not None:
        bad_data = rows_not_finite(batch)
        if bad_data is not None:
            what, rows = bad_data
            parts.append(f"the {what} of {named_rows(rows, batch, manifest)} are not finite")
            hint = MEND
        if parameter is None:
            look = Look(training, batch)
            parts.append(
                look.layer or f"every layer's output is finite; {type(training.loss).__name__} is not"
            )
            if bad_data is None and (rows := look.rows_with_bad_loss()):
                parts.append(f"the loss of {named_rows(rows, batch, manifest)} is not finite by itself")
    return NonFiniteLoss("; ".join(parts), batch, hint)


def spoilt_parameter(net: nn.Module) -> str | None:
    """As the state_dict names it."""
    named = net.named_parameters()
    return next((name for name, value in named if not value.isfinite().all()), None)


def rows_not_finite(batch: Batch) -> tuple[str, list[int]] | None:
    """Whether it is the inputs or the targets, and in which places of the batch."""
    for what, value in (*(("inputs", x) for x in batch.inputs), ("targets", batch.targets)):
        is_bad_B = ~value.reshape(len(value), -1).isfinite().all(1)
        if is_bad_B.any():
            return what, is_bad_B.nonzero().flatten().tolist()
    return None


class Look:
    """One more forward of the batch. `layer` says which is the first whose output is not finite though its
    inputs are."""

    def __init__(self, training: Training, batch: Batch) -> None:
        self._training, self._batch = training, batch
        alone = dataclasses.replace(training, crew=Crew())  # the other ranks are in the middle of the step
        self._outputs: Any = None
        self.layer: str | None = None
        named = training.net.named_modules()
        hooks = [module.register_forward_hook(self._hook(name)) for name, module in named]
        try:
            with torch.compiler.set_stance("force_eager"), torch.no_grad():
                trainer.compute_loss(alone, batch, reduces=False)
        finally:
            for hook in hooks:
                hook.remove()

    def rows_with_bad_loss(self) -> list[int]:
        """Their places in the batch, by what the net made of the whole of it."""
        return [row for row in range(self._batch.rows) if not self._loss_of(row).isfinite().all()]

    def _loss_of(self, row: int) -> Tensor:
        only = slice(row, row + 1)
        outputs = self._outputs
        outputs = tuple(output[only] for output in outputs) if isinstance(outputs, tuple) else outputs[only]
        loss: Tensor = self._training.loss(outputs, meet(outputs, self._batch.targets[only]))
        return loss

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if not name:
                self._outputs = outputs
            if self.layer is None and is_finite(inputs) and not is_finite(outputs):
                where = f"layer {name}" if name else "the net"
                self.layer = f"{where} ({type(module).__name__}) is the first whose output is not finite"

        return look


def named_rows(rows: list[int], batch: Batch, manifest: Manifest) -> str:
    """By their numbers in the dataset, which count from 0, and the split that they are of."""
    if len(rows) == batch.rows > 1:
        return f"every row of a batch of {batch.rows}"
    index = batch.index.tolist()
    numbers = sorted(index[row] for row in rows)[:MAX_ROWS]
    parts = []
    for split in manifest.splits:
        if of_split := [str(number) for number in numbers if number in manifest.rows_of(split)]:
            parts.append(f"{'row' if len(of_split) == 1 else 'rows'} {', '.join(of_split)} of {split}")
    more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
    return " and ".join(parts) + more


def is_finite(value: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors_of(value))


def tensors_of(value: Any) -> Iterator[Tensor]:
    match value:
        case Tensor():
            yield value
        case tuple() | list():
            for inner in value:
                yield from tensors_of(inner)
        case dict():
            yield from tensors_of(list(value.values()))
