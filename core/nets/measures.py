"""Measures beside the loss: gathered on the device over all rows, read once at the end."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from core.nets import registry
from core.nets.components.metrics import BINARY
from core.nets.readout import HOLDS, Outputs, Readout, read_out, restored
from modelyard.specs.jobspec import Component, Task

# B rows in the batch, C classes, K labels or values


class Measures(Protocol):
    def add(self, outputs: Any, targets: Tensor) -> None: ...

    def compute(self) -> dict[str, float]:
        """A host-device sync. nan where no row was added, or where a measure says nothing of these rows."""
        ...


#: Fresh measures on a device.
Measuring = Callable[[torch.device], Measures]


class ClassificationMeasures:
    """accuracy = correct / rows."""

    def __init__(self, device: torch.device) -> None:
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._rows = 0

    def add(self, scores_BC: Tensor, targets_B: Tensor) -> None:
        self._correct += (scores_BC.argmax(dim=1) == targets_B).sum()
        self._rows += len(targets_B)

    def compute(self) -> dict[str, float]:
        return {"accuracy": self._correct.item() / self._rows if self._rows else float("nan")}


class MultilabelMeasures:
    """accuracy = labels that are right (a score of 0.5 or more says yes) / all labels of all rows."""

    def __init__(self, device: torch.device) -> None:
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._labels = 0

    def add(self, scores_BK: Tensor, targets_BK: Tensor) -> None:
        self._correct += ((scores_BK >= HOLDS) == (targets_BK > 0)).sum()
        self._labels += targets_BK.numel()

    def compute(self) -> dict[str, float]:
        return {"accuracy": self._correct.item() / self._labels if self._labels else float("nan")}


class RegressionMeasures:
    """mae = sum |y - p| / n and r2 = 1 - sum (y - p)^2 / sum (y - mean y)^2, over all targets at once.

    The total sum of squares is gathered as sum y^2 - (sum y)^2 / n, shifted by the first target so
    that large means do not cancel (Chan, Golub, LeVeque 1983, "shifted data").
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._shift: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor, targets: Tensor) -> None:
        values, targets = values.double(), targets.double().reshape(values.shape)
        if self._shift is None:
            self._shift = targets.flatten()[0]
        error, shifted = targets - values, targets - self._shift
        self._sums += torch.stack(
            [error.abs().sum(), error.square().sum(), shifted.sum(), shifted.square().sum()]
        )
        self._count += targets.numel()

    def compute(self) -> dict[str, float]:
        if not self._count:
            return {"r2": float("nan"), "mae": float("nan")}
        absolute, squared, shifted, shifted_squared = self._sums.tolist()
        total = shifted_squared - shifted**2 / self._count
        return {"r2": 1 - squared / total if total > 0 else float("nan"), "mae": absolute / self._count}


MEASURES: dict[Task, Measuring] = {
    "classification": ClassificationMeasures,
    "regression": RegressionMeasures,
    "multilabel": MultilabelMeasures,
}


class JobMeasures:
    """All that a job measures, from what its net gives and what its loss sees: the metrics that its spec
    lists, by name or as components of torchmetrics."""

    def __init__(
        self, task: Task, readout: Readout, metrics: list[str | Component], device: torch.device
    ) -> None:
        self._task, self._readout = task, readout
        self._usual = MEASURES[task](device)
        self._names = [metric for metric in metrics if isinstance(metric, str)]
        self._metrics = {
            str(metric["name"]): TorchMetric(task, metric, device)
            for metric in metrics
            if not isinstance(metric, str)
        }

    def add(self, outputs: Outputs, targets: Tensor) -> None:
        if not self._names and not self._metrics:
            return  # a loss without a target has none to measure against
        answers, truth = answered(self._task, self._readout, outputs, targets)
        if self._names:
            self._usual.add(answers, truth)
        for metric in self._metrics.values():
            metric.add(answers, truth)

    def compute(self) -> dict[str, float]:
        usual = self._usual.compute() if self._names else {}
        return {name: usual[name] for name in self._names} | {
            name: metric.compute() for name, metric in self._metrics.items()
        }


def answered(task: Task, readout: Readout, outputs: Outputs, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What a prediction says, and what would have been right, in the same terms: [B, C] and [B] int64, or
    two of one shape."""
    answers = read_out(readout, outputs)
    match task:
        case "classification":
            return answers, targets.reshape(len(answers)).long()
        case "multilabel":
            return answers, targets.reshape(answers.shape)
        case "regression":
            if readout.scaling is not None:
                targets = restored(readout.scaling, targets)
            return answers, targets.reshape(answers.shape)


class TorchMetric:
    """One class of torchmetrics, as a component names it. Several target values give the mean over them where
    the class has a number for each."""

    def __init__(self, task: Task, component: Component, device: torch.device) -> None:
        self._task = task
        self._looks_at_second = component["type"].startswith(BINARY)
        self._is_by_row = component["type"] == "CosineSimilarity"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of what it will keep in memory
            self._metric: Metric = registry.construct("metric", component)
        if hasattr(self._metric, "validate_args"):
            self._metric.validate_args = False
        if task == "regression":
            self._metric.set_dtype(torch.float64)
        self._metric.to(device)
        self._rows = 0

    def add(self, answers: Tensor, truth: Tensor) -> None:
        self._rows += len(truth)
        match self._task:
            case "classification":
                self._metric.update(answers[:, 1] if self._looks_at_second else answers, truth)
            case "multilabel":
                self._metric.update(answers, truth.long())
            case "regression":
                values, wanted = (part.double().reshape(len(part), -1) for part in (answers, truth))
                if values.shape[1] == 1 and not self._is_by_row:
                    values, wanted = values[:, 0], wanted[:, 0]
                self._metric.update(values, wanted)

    def compute(self) -> float:
        if not self._rows:
            return float("nan")
        with warnings.catch_warnings():
            # It warns of classes without rows and the like; the number says nan, or what is usual.
            warnings.simplefilter("ignore")
            found: Tensor = self._metric.compute()
        return float(found.double().mean().item())


def measuring(task: Task, readout: Readout, metrics: list[str | Component]) -> Measuring:
    """`metrics` are those of a resolved spec."""
    return partial(JobMeasures, task, readout, metrics)
