"""Optimizers of torch.optim that need nothing but gradients."""

from typing import Annotated

from msgspec import Meta, Struct
from torch import optim

from core.nets.components.family import Extra, Family


class Group(Struct, frozen=True):
    """Parameters by their names, and beside `match` any keyword of the optimizer; with a `type` of its own
    the group has that optimizer."""

    match: Annotated[str, Meta(min_length=1, max_length=200)]


FAMILY = Family(
    name="optimizer",
    namespace=optim,
    types=(
        "SGD",
        "Adam",
        "AdamW",
        "ASGD",
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adamax",
        "Muon",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Rprop",
    ),
    absent={
        "LBFGS": "its step evaluates the loss many times over, and a batch is seen once",
        "Optimizer": "it is what optimizers inherit from",
        "SparseAdam": "it takes sparse gradients alone, and no layer here gives them",
    },
    left_out={
        "*.params": "the parameters are the net's",
        "*.capturable": "for steps captured in a CUDA graph, which the trainer doesn't do",
        "*.differentiable": "it differentiates through the step, and then weights can't be changed in place",
    },
    extras={
        "*.param_groups": Extra(
            "torch takes groups in place of the parameters", list[Group], is_optional=True
        ),
    },
    least={"ns_steps": 1},
)
