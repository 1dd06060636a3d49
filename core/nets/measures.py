"""Measures beside the loss: sums on the device, one division at the end."""

from typing import Protocol

import torch
from torch import Tensor

from modelyard.specs.jobspec import Task

# B rows in the batch, C classes

#: What is measured for a task, without being asked.
NAMES: dict[Task, tuple[str, ...]] = {"classification": ("accuracy",), "regression": ("r2", "mae")}


class Measures(Protocol):
    def __init__(self, device: torch.device) -> None: ...

    def add(self, outputs: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> dict[str, float]:
        """A host-device sync. nan where no row was added."""


class ClassificationMeasures:
    """accuracy = correct / rows."""

    def __init__(self, device: torch.device) -> None:
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._rows = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self._correct += (outputs.argmax(dim=1) == targets).sum()
        self._rows += len(targets)

    def compute(self) -> dict[str, float]:
        return {"accuracy": self._correct.item() / self._rows if self._rows else float("nan")}


class RegressionMeasures:
    """mae = sum |y - p| / n and r2 = 1 - sum (y - p)^2 / sum (y - mean y)^2, over all targets at once.

    The total sum of squares is gathered as sum y^2 - (sum y)^2 / n, shifted by the first target so
    that large means do not cancel (Chan, Golub, LeVeque 1983, "shifted data").
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._shift: Tensor | None = None
        self._count = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        targets, outputs = targets.double(), outputs.double()
        if self._shift is None:
            self._shift = targets.flatten()[0]
        error, shifted = targets - outputs, targets - self._shift
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


MEASURES: dict[Task, type[Measures]] = {
    "classification": ClassificationMeasures,
    "regression": RegressionMeasures,
}
