"""Losses: torch.nn's classes that take what a net gives and what the dataset says."""

from typing import Literal

from torch import nn

from core.nets.components.family import Extra, Family, Override
from core.nets.modules import losses as own

BALANCED = "balanced"

_CLASS_WEIGHTS = Extra(
    "one number a class (torch: weight), or balanced: n / (C * rows of the class), as in scikit-learn",
    list[float] | Literal["balanced"] | None,
    None,
)
_LABEL_WEIGHTS = Extra("one number a label (torch: weight)", list[float] | None, None)
_WEIGHT = 'weights are a list in the spec: say "class_weights"'

_LAYER_AND_LOSS = "it is the last layer and the loss in one; take Linear and CrossEntropyLoss"

FAMILY = Family(
    name="loss",
    namespace=nn,
    types=(
        "CrossEntropyLoss",
        "NLLLoss",
        "MultiMarginLoss",
        "BCELoss",
        "BCEWithLogitsLoss",
        "SoftMarginLoss",
        "MultiLabelMarginLoss",
        "MultiLabelSoftMarginLoss",
        "MSELoss",
        "L1Loss",
        "SmoothL1Loss",
        "HuberLoss",
        "KLDivLoss",
        "PoissonNLLLoss",
        "GaussianNLLLoss",
        "HingeEmbeddingLoss",
        "CosineEmbeddingLoss",
        "MarginRankingLoss",
        "TripletMarginLoss",
    ),
    own={
        kind.__name__: kind
        for kind in (
            own.BCELoss,
            own.SoftMarginLoss,
            own.MultiLabelMarginLoss,
            own.GaussianNLLLoss,
            own.HingeEmbeddingLoss,
            own.CosineEmbeddingLoss,
            own.MarginRankingLoss,
            own.TripletMarginLoss,
        )
    },
    absent={
        "CTCLoss": "it aligns sequences, and needs the length of each beside its target",
        "AdaptiveLogSoftmaxWithLoss": _LAYER_AND_LOSS,
        "LinearCrossEntropyLoss": _LAYER_AND_LOSS,
        "TripletMarginWithDistanceLoss": "its distance is a Python function; take TripletMarginLoss",
        "NLLLoss2d": "torch has deprecated it for NLLLoss",
    },
    left_out={
        "*.size_average": "torch has deprecated it for reduction",
        "*.reduce": "torch has deprecated it for reduction",
        "*.weight": _WEIGHT,
    },
    overrides={
        "*.reduction": Override(
            'the signature says str; "none" is no number to minimise', Literal["mean", "sum"]
        ),
        "KLDivLoss.reduction": Override(
            "the divergence is a sum over values; torch warns of mean, which divides it by their count too",
            Literal["batchmean", "sum"],
            "batchmean",
        ),
        "MultiMarginLoss.p": Override("torch takes no other power", Literal[1, 2]),
        "BCEWithLogitsLoss.pos_weight": Override(
            "the signature says Tensor; balanced: rows without a label for each with it",
            list[float] | Literal["balanced"] | None,
        ),
    },
    extras={
        "CrossEntropyLoss.class_weights": _CLASS_WEIGHTS,
        "NLLLoss.class_weights": _CLASS_WEIGHTS,
        "MultiMarginLoss.class_weights": _CLASS_WEIGHTS,
        "BCELoss.class_weights": _LABEL_WEIGHTS,
        "BCEWithLogitsLoss.class_weights": _LABEL_WEIGHTS,
        "MultiLabelSoftMarginLoss.class_weights": _LABEL_WEIGHTS,
    },
)
