"""Rows of a dataset that a trained net doubts."""

from typing import Any

from msgspec import Struct, field


class Suspect(Struct):
    """One row. `row` counts through the dataset, `index` within its `split`, as `/samples` counts.

    `label` and `predicted` are names of classes, lists of the labels that hold, or quantities. `score` is how
    far the given class is ahead of the best other one, each measured against what is usual for its class:
    below 0 the net believes another label. None where there are no classes. `is_likely`: the net is as sure
    of `predicted` as it is of the rows that bear that label. `is_validation`: the net was not trained on it.
    """

    row: int
    split: str
    index: int
    label: Any
    predicted: Any
    loss: float
    score: float | None = None
    is_likely: bool = False
    is_validation: bool = False


class Suspects(Struct):
    """The most doubtful rows of a split, the worst first; of `num_scored` rows that were looked at
    `num_likely` are likely to bear a wrong label (None where there are no classes)."""

    split: str
    num_scored: int
    num_likely: int | None = None
    items: list[Suspect] = field(default_factory=list)
