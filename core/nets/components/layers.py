"""Layers: torch.nn classes that are functions of their plain arguments, and Sequential, which holds them."""

from typing import Literal

from torch import nn

from core.nets.components.family import ComponentList, Extra, Family, Override

SEQUENTIAL = "Sequential"

FAMILY = Family(
    name="layer",
    namespace=nn,
    types=(
        SEQUENTIAL,
        "Linear",
        "Identity",
        "Flatten",
        "Conv2d",
        "MaxPool2d",
        "AvgPool2d",
        "AdaptiveAvgPool2d",
        "AdaptiveMaxPool2d",
        "BatchNorm1d",
        "BatchNorm2d",
        "Dropout",
        "Dropout2d",
        "ReLU",
        "ReLU6",
        "LeakyReLU",
        "ELU",
        "SELU",
        "GELU",
        "SiLU",
        "Mish",
        "Hardswish",
        "Softplus",
        "Sigmoid",
        "Tanh",
        "Softmax",
        "LogSoftmax",
    ),
    left_out={
        "*.device": "the trainer places the net",
        "*.dtype": "the trainer's precision decides",
        "*.return_indices": "it makes the output a tuple, which no next layer takes",
    },
    overrides={
        "Conv2d.padding": Override(
            "the signature says str; these two words are all it takes",
            Literal["same", "valid"] | int | tuple[int, int],
        ),
        "GELU.approximate": Override("the signature says str", Literal["none", "tanh"]),
        "Softmax.dim": Override("torch's None guesses a dimension and warns; 1 holds the classes", int, 1),
        "LogSoftmax.dim": Override("torch's None guesses a dimension and warns; 1 holds the classes", int, 1),
    },
    extras={
        f"{SEQUENTIAL}.layers": Extra("torch takes them as *args", ComponentList("layer")),
    },
    least={
        "in_features": 1,
        "out_features": 1,
        "in_channels": 1,
        "out_channels": 1,
        "num_features": 1,
        "kernel_size": 1,
        "stride": 1,
        "dilation": 1,
        "groups": 1,
        "output_size": 1,
        "divisor_override": 1,
        "padding": 0,
    },
    inferred={"in_features": -1, "in_channels": 1, "num_features": 1},
)

#: How many dimensions, the batch included, a layer's input has. torch would take a batch of three
#: dimensions for one image without a batch, and mix up rows.
INPUT_DIMS: dict[str, tuple[int, ...]] = {
    "Conv2d": (4,),
    "MaxPool2d": (4,),
    "AvgPool2d": (4,),
    "AdaptiveAvgPool2d": (4,),
    "AdaptiveMaxPool2d": (4,),
    "BatchNorm1d": (2, 3),
    "BatchNorm2d": (4,),
    "Dropout2d": (4,),
}

BATCH_NORMS = frozenset({"BatchNorm1d", "BatchNorm2d"})
WEIGHTED = frozenset({"Linear", "Conv2d"})
#: Between two weighted layers these leave the pair one linear map.
LINEAR_BETWEEN = frozenset({"Identity", "Flatten", "Dropout", "Dropout2d"})
#: What bends or rescales scores that a classifier's loss expects as they are, and why that hurts.
SPOILS_SCORES: dict[str, str] = {
    "Softmax": "the loss applies a softmax itself; two of them train slowly",
    "Sigmoid": "the loss takes scores of any size; a sigmoid leaves them no room",
    "ReLU": "the loss takes scores of any sign; a ReLU cuts the negative ones off",
}
