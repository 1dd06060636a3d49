"""Losses that take (prediction, target), and the task each is for."""

from typing import Literal

from torch import nn

from core.nets.components.family import Family, Override

FAMILY = Family(
    name="loss",
    namespace=nn,
    types=("CrossEntropyLoss", "MSELoss"),
    left_out={
        "*.size_average": "torch has deprecated it for reduction",
        "*.reduce": "torch has deprecated it for reduction",
        "CrossEntropyLoss.ignore_index": "classes are the dataset's labels, and none of them means nothing",
    },
    overrides={
        "*.reduction": Override(
            'the signature says str; "none" is no number to minimise', Literal["mean", "sum"]
        ),
    },
)

#: The loss a task gets where the spec names none.
DEFAULT_LOSSES = {"classification": "CrossEntropyLoss", "regression": "MSELoss"}
