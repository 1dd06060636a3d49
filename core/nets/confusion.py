"""Which class was taken for which, counted on the device: the table that a version shows."""

import torch
from torch import Tensor

from core.nets.measures import Measures, answered
from core.nets.readout import HOLDS, Outputs, Readout
from modelyard.specs import ClassScores, Evaluation
from modelyard.specs.jobspec import Task

# B rows in the batch, C classes or labels

#: Past these a table is too long to be read, or sent.
MAX_TABLE_CLASSES = 1000
MAX_MATRIX_CLASSES = 200


class Confusion:
    """Measures of their own, and the counts of right and wrong beside them. `counts_CC[i, j]` are the rows of
    class i that were taken for j; of a multilabel task `right_C`, `taken_C` and `support_C` alone."""

    def __init__(
        self,
        measures: Measures,
        task: Task,
        readout: Readout,
        classes: list[str] | None,
        device: torch.device,
    ) -> None:
        self._measures, self._task, self._readout = measures, task, readout
        self._classes = classes if len(classes or []) <= MAX_TABLE_CLASSES else None
        count = len(self._classes or [])
        is_square = task == "classification"
        self._counts_CC = torch.zeros(count * count * is_square, dtype=torch.int64, device=device)
        self._counts_3C = torch.zeros(3, count, dtype=torch.int64, device=device)

    def add(self, outputs: Outputs, targets: Tensor) -> None:
        self._measures.add(outputs, targets)
        if self._classes is None:
            return
        answers, truth = answered(self._task, self._readout, outputs, targets)
        count = len(self._classes)
        if self._task == "classification":
            cells_B = truth * count + answers.argmax(dim=1)
            # index_add_, since bincount would wait for the device to learn the greatest cell.
            self._counts_CC.index_add_(0, cells_B, torch.ones_like(cells_B))
        else:
            taken_BC, holds_BC = answers >= HOLDS, truth > 0
            self._counts_3C += torch.stack(
                [(taken_BC & holds_BC).sum(dim=0), taken_BC.sum(dim=0), holds_BC.sum(dim=0)]
            )

    def compute(self) -> dict[str, float]:
        return self._measures.compute()

    def evaluation(self, split: str) -> Evaluation | None:
        """None for a regression, and past `MAX_TABLE_CLASSES` classes. A host-device sync."""
        if self._classes is None:
            return None
        matrix = None
        counts_3C = self._counts_3C
        if self._task == "classification":
            counts_CC = self._counts_CC.reshape(len(self._classes), -1)
            counts_3C = torch.stack([counts_CC.diagonal(), counts_CC.sum(dim=0), counts_CC.sum(dim=1)])
            if len(self._classes) <= MAX_MATRIX_CLASSES:
                matrix = counts_CC.tolist()
        rows = zip(self._classes, *counts_3C.tolist(), strict=True)
        return Evaluation(split, [class_scores(*row) for row in rows], matrix)


def class_scores(label: str, right: int, taken: int, support: int) -> ClassScores:
    """precision = right / taken, recall = right / support, f1 = 2 right / (taken + support); 0 where nothing
    was taken for the class, or nothing is of it, as in scikit-learn."""
    return ClassScores(
        label=label,
        precision=right / taken if taken else 0.0,
        recall=right / support if support else 0.0,
        f1=2 * right / (taken + support) if taken + support else 0.0,
        support=support,
    )
