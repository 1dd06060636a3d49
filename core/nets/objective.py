"""What the net's end must be for the task: output shape, loss, metrics, and what may be monitored."""

import torch
from torch import Tensor

from core.data.manifest import Manifest
from core.data.targets import Targets
from core.nets.build import Component, build_loss
from core.nets.faults import fault, first_line, join, show, suggestion
from core.nets.images import REFUSALS
from core.nets.measures import NAMES
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Task

# B rows in the batch, C classes

_FEW = 2**16


def check_output(
    targets: Targets, manifest: Manifest, output: Tensor, pointer: str, errors: list[ProblemError]
) -> Tensor | None:
    """The meta targets of a batch in the shape the loss takes; None where the output can't be compared."""
    shape, rows = list(output.shape), output.shape[0]
    if targets.classes is not None:
        wanted = [rows, len(targets.classes)]
        if shape == wanted:
            return torch.empty(rows, dtype=torch.int64, device="meta")
        hint = " Put a Flatten before the last Linear." if len(shape) > 2 else ""
        message = (
            f"A classifier of {len(targets.classes)} classes ends with {wanted}, one score a class; "
            f"this layer gives {shape}.{hint}"
        )
    else:
        feature = manifest.features[targets.target].shape
        per_row = torch.Size(feature).numel()
        if output.numel() == rows * per_row:
            return torch.empty(shape, dtype=torch.float32, device="meta")
        message = (
            f"A regression of {targets.target!r} ends with [{rows}, {per_row}], {per_row} values a row; "
            f"this layer gives {shape}."
        )
    fault(errors, pointer, "shape", message)
    return None


def check_loss(loss: Component, output: Tensor, target: Tensor, errors: list[ProblemError]) -> None:
    """Construct the loss and apply it, so that autograd saves what it will save: on zeros where they are few,
    for meta takes milliseconds where numbers take microseconds, else on meta."""
    if output.numel() <= _FEW:
        output = torch.zeros(output.shape, requires_grad=True)
        target = torch.zeros(target.shape, dtype=target.dtype)
    try:
        build_loss(loss)(output, target)
    except REFUSALS as error:
        came = f"for an output of {list(output.shape)} and targets of {list(target.shape)}"
        fault(errors, "/loss", "invalid_value", f"torch refuses {loss['type']} {came}: {first_line(error)}.")


def check_metrics(spec: JobSpec, task: Task, errors: list[ProblemError]) -> list[str]:
    """The metrics of the job; also checks that the monitored one will exist."""
    known = NAMES[task]
    for place, name in enumerate(spec.metrics):
        if name not in known:
            hint = f"{suggestion(name, known)} Valid are: {', '.join(known)}."
            message = f"There is no metric {show(name)} for {task}.{hint}"
            fault(errors, join("/metrics", place), "unknown_metric", message)
    monitors = ["val_loss", "train_loss", *(f"val_{name}" for name in known)]
    monitor = spec.trainer.checkpoint.monitor
    if monitor not in monitors:
        hint = suggestion(monitor, monitors)
        message = f"{show(monitor)} won't be measured.{hint} Valid are: {', '.join(monitors)}."
        fault(errors, "/trainer/checkpoint/monitor", "unknown_metric", message)
    return list(known)
