"""How parameters start: the functions of torch.nn.init that fill a tensor in place."""

from torch.nn import init

from core.nets.components.family import Extra, Family

_RENAMED = "torch has renamed it: its name ends with _"

FAMILY = Family(
    name="initializer",
    namespace=init,
    types=(
        "uniform_",
        "normal_",
        "trunc_normal_",
        "constant_",
        "ones_",
        "zeros_",
        "eye_",
        "dirac_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "orthogonal_",
        "sparse_",
    ),
    absent={
        "calculate_gain": "it fills nothing; xavier_* and orthogonal_ take its number as gain",
        **dict.fromkeys(
            (
                "constant",
                "dirac",
                "eye",
                "kaiming_normal",
                "kaiming_uniform",
                "normal",
                "orthogonal",
                "sparse",
                "uniform",
                "xavier_normal",
                "xavier_uniform",
            ),
            _RENAMED,
        ),
    },
    left_out={
        "*.tensor": "the parameters are the net's",
        "*.generator": "the job's seed rules",
    },
    extras={
        "*.layer": Extra("which layers, by their class", str | None, None),
        "*.match": Extra("which parameters, by a pattern of their names", str | None, None),
        "*.parameter": Extra("which parameters, by the last part of their names", str | None, None),
    },
    least={"groups": 1},
)
