"""Optimizers of torch.optim that need nothing but gradients."""

from torch import optim

from core.nets.components.family import Family

FAMILY = Family(
    name="optimizer",
    namespace=optim,
    types=("SGD", "Adam", "AdamW"),
    left_out={
        "*.params": "the parameters are the net's",
        "*.capturable": "for steps captured in a CUDA graph, which the trainer doesn't do",
        "*.differentiable": "it differentiates through the step, and then weights can't be changed in place",
    },
)
