"""What the net's end must be for the task: the loss, the output's shape, and how the two meet."""

import torch
from torch import Tensor, nn

from core.data.manifest import Kind, Manifest
from core.data.targets import Targets
from core.data.tasks import DEFAULT_LOSSES, PAIR_LOSSES
from core.faults import fault, first_line
from core.nets import registry
from core.nets.balance import resolve_weights
from core.nets.build import Component, build_loss
from core.nets.modules.losses import OneHotTargets
from core.nets.readout import Outputs, has_one_output
from core.nets.refusals import REFUSALS
from modelyard.specs import ProblemError

# B rows in the batch, C classes, K values of a row

_FEW = 2**16


def resolve_loss(
    loss: Component | None, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> Component | None:
    """The loss that the spec names, checked, or the task's usual one where it names none; with numbers for
    all weights."""
    if loss is None:
        usual = {"type": DEFAULT_LOSSES[targets.task]}
        loss = registry.check_component("loss", usual, "/loss", errors)
    if loss is None:
        return None
    return resolve_weights(loss, values_per_row(loss, targets, manifest), targets, manifest, errors)


def values_per_row(loss: Component, targets: Targets, manifest: Manifest) -> int:
    """How many values a row's target has as the loss sees it."""
    if targets.classes is not None:
        return 1 if has_one_output(loss["type"], targets) else len(targets.classes)
    return sum(torch.Size(manifest.features[name].shape).numel() for name in targets.names)


def outputs_per_row(loss: Component, targets: Targets, manifest: Manifest) -> int | None:
    """How many numbers the net gives for a row; None where the loss leaves that open, as it compares
    outputs with each other."""
    pair = PAIR_LOSSES.get(loss["type"])
    if pair is not None and pair.num_outputs > 1:
        return None
    return values_per_row(loss, targets, manifest) * (2 if loss["type"] == "GaussianNLLLoss" else 1)


def check_output(
    loss: Component,
    targets: Targets,
    manifest: Manifest,
    output: Outputs,
    pointer: str,
    errors: list[ProblemError],
) -> Tensor | None:
    """The meta targets of a batch as the dataset gives them; None where the output can't be compared."""
    pair = PAIR_LOSSES.get(loss["type"])
    wanted = pair.num_outputs if pair is not None else 1
    several = output if isinstance(output, tuple) else (output,)
    if len(several) != wanted:
        message = (
            f"{loss['type']} takes {wanted} output{'s' if wanted > 1 else ''} of the net; it gives "
            f"{len(several)}. {'Name as many nodes' if wanted > 1 else 'Name one node'} in a Graph's output."
        )
        fault(errors, pointer, "outputs", message)
        return None
    rows = len(several[0])
    if wanted > 1:
        return _pair_targets(loss, targets, several, pointer, errors)
    return _single_targets(loss, targets, manifest, several[0], rows, pointer, errors)


def check_loss(
    loss: Component, targets: Targets, output: Outputs, target: Tensor, errors: list[ProblemError]
) -> None:
    """Construct the loss and apply it, so that autograd saves what it will save: on zeros where they are few,
    for meta takes milliseconds where numbers take microseconds, else on meta."""
    several = output if isinstance(output, tuple) else (output,)
    if sum(part.numel() for part in several) <= _FEW:
        several = tuple(torch.zeros(part.shape, requires_grad=True) for part in several)
        target = torch.zeros(target.shape, dtype=target.dtype)
        if loss["type"] in PAIR_LOSSES:
            target = target - 1  # 0 is neither 1 nor -1
    tried = several if isinstance(output, tuple) else several[0]
    try:
        value = build_loss(loss, is_one_hot=targets.is_one_hot)(tried, meet(tried, target))
    except REFUSALS as error:
        shapes = " and ".join(str(list(part.shape)) for part in several)
        came = f"for an output of {shapes} and targets of {list(target.shape)}"
        fault(errors, "/loss", "invalid_value", f"torch refuses {loss['type']} {came}: {first_line(error)}.")
        return
    if value.dim() > 0:  # a plugin's, since torch's own reduce
        message = f"{loss['type']} gives {list(value.shape)}; a loss is one number, the mean over the rows."
        fault(errors, "/loss", "invalid_value", message)


def meet(outputs: Outputs, targets: Tensor) -> Tensor:
    """The targets in the shape and kind that the loss compares with the outputs: class indices stay, but for
    a net with one output, where they become 0.0 and 1.0; numbers take the shape of the outputs where their
    counts agree."""
    if isinstance(outputs, tuple):
        return targets
    if targets.dtype == torch.int64:
        is_single = outputs.shape[1:].numel() == 1
        return targets.to(torch.float32).reshape(outputs.shape) if is_single else targets
    return targets.reshape(outputs.shape) if targets.numel() == outputs.numel() else targets


def loss_sum_and_count(
    loss: nn.Module, value: Tensor, targets: Tensor, rows: int
) -> tuple[Tensor, Tensor | int]:
    """(sum, count) of a batch, float64 on the device, from what the loss module gave: added up over batches
    and divided once they are the loss over all rows at once, whatever the batches.

    torch's mean divides by the rows (or by all elements, which every row has equally many of); only the
    cross entropy of class indices divides by the sum of their weights, without rows of `ignore_index`. A loss
    that is a sum is told as the mean of it over rows.
    """
    if is_sum(loss):
        return value.double(), rows
    counts = row_counts(loss, targets)
    if counts is None:
        return value.double() * rows, rows
    count = counts.sum()
    # torch's mean over no rows is nan, and they add nothing.
    return torch.where(count > 0, value.double() * count, 0.0), count


def is_sum(loss: nn.Module) -> bool:
    """Whether its value is a sum over rows; else it is a mean."""
    plain = loss.loss if isinstance(loss, OneHotTargets) else loss
    return getattr(plain, "reduction", "mean") == "sum"


def row_counts(loss: nn.Module, targets: Tensor) -> Tensor | None:
    """What each row counts for in torch's mean, float64 as many as targets; None where each counts one."""
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or targets.dtype != torch.int64:
        return None
    if loss.weight is None and loss.ignore_index < 0:
        return None
    counts = targets != loss.ignore_index
    return counts.double() if loss.weight is None else loss.weight[targets].double() * counts


def _target_shape(rows: int, targets: Targets, manifest: Manifest) -> list[int]:
    """Of a batch as the dataset gives it."""
    if len(targets.names) > 1:
        return [rows, len(targets.names)]
    return [rows, *manifest.features[targets.names[0]].shape]


def _pair_targets(
    loss: Component,
    targets: Targets,
    several: tuple[Tensor, ...],
    pointer: str,
    errors: list[ProblemError],
) -> Tensor | None:
    rows, shapes = len(several[0]), [list(part.shape) for part in several]
    is_ranking = loss["type"] == "MarginRankingLoss"
    fits = all(part.numel() == rows for part in several) if is_ranking else several[0].dim() == 2
    if fits and (is_ranking or all(shape == shapes[0] for shape in shapes)):
        return torch.empty(rows, len(targets.names), dtype=torch.float32, device="meta")
    wanted = f"[{rows}, 1]" if is_ranking else f"[{rows}, width], all of one width"
    came = " and ".join(str(shape) for shape in shapes)
    message = f"{loss['type']} compares outputs of {wanted}; the net gives {came}. Mend the Graph's outputs."
    fault(errors, pointer, "shape", message)
    return None


def _single_targets(
    loss: Component,
    targets: Targets,
    manifest: Manifest,
    output: Tensor,
    rows: int,
    pointer: str,
    errors: list[ProblemError],
) -> Tensor | None:
    shape, values = list(output.shape), values_per_row(loss, targets, manifest)
    wanted = [rows, values]
    match targets.task:
        case "classification":
            target = torch.empty(rows, dtype=torch.int64, device="meta")
            if shape == wanted or (values == 1 and shape == [rows]):
                return target
            each = "one score a class" if values > 1 else "the score of the second"
            subject = f"A classifier of {len(targets.classes or [])} classes ends with {wanted}, {each}"
            is_whole = manifest.features[targets.names[0]].dtype == "int64" and manifest.kind is Kind.TABLE
            if is_whole and output.numel() == rows:
                subject += ' (for a quantity say "task": "regression")'
        case "multilabel":
            if shape == wanted:
                return torch.empty(wanted, dtype=torch.float32, device="meta")
            subject = f"A net for {values} labels ends with {wanted}, one score a label"
        case "regression":
            is_gaussian = loss["type"] == "GaussianNLLLoss"
            wanted = [rows, values * 2 if is_gaussian else values]
            if output.numel() == rows * wanted[1] and not (is_gaussian and shape[-1] % 2):
                return torch.empty(_target_shape(rows, targets, manifest), device="meta")
            names = ", ".join(repr(name) for name in targets.names[:5])
            each = "a mean and a variance" if is_gaussian else "one value"
            subject = f"A regression of {names} ends with {wanted}, {each} for each of {values} values a row"
    hint = f" Give it {wanted[-1]} output{'s' if wanted[-1] > 1 else ''}."
    if len(shape) > len(wanted):
        hint = " Put a Flatten before the last Linear."
    fault(errors, pointer, "shape", f"{subject}; this layer gives {shape}.{hint}")
    return None
