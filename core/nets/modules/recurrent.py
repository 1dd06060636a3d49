"""RNN, LSTM and GRU whose forward gives one tensor. The keys of their `state_dict` are torch's own."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

# B rows in the batch, T steps, H hidden size times directions

Output = Literal["last", "all", "mean"]


def select(steps_BTH: Tensor, output: Output, is_bidirectional: bool) -> Tensor:
    """`all` steps [B, T, H], their `mean` [B, H], or the `last` [B, H]: forwards the last step's, backwards
    the first's, which is where that direction ends."""
    match output:
        case "all":
            return steps_BTH
        case "mean":
            return steps_BTH.mean(dim=1)
        case "last" if is_bidirectional:
            half = steps_BTH.shape[-1] // 2
            return torch.cat([steps_BTH[:, -1, :half], steps_BTH[:, 0, half:]], dim=-1)
        case "last":
            return steps_BTH[:, -1]


class _OneOutput(nn.RNNBase):
    """`output` chooses what goes on of the steps; the last states stay behind."""

    def __init__(self, *, output: Output, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.output = output

    def forward(self, x_BTF: Tensor) -> Tensor:
        steps_BTH, _ = super().forward(x_BTF)
        return select(steps_BTH, self.output, self.bidirectional)


class RNN(_OneOutput, nn.RNN):  # type: ignore[misc]  # torch's forward gives the state beside it
    """An Elman network over the steps of [B, T, features]; `output` chooses what it gives on."""


class LSTM(_OneOutput, nn.LSTM):  # type: ignore[misc]  # torch's forward gives the state beside it
    """A long short-term memory over the steps of [B, T, features]; `output` chooses what it gives on."""


class GRU(_OneOutput, nn.GRU):  # type: ignore[misc]  # torch's forward gives the state beside it
    """A gated recurrent unit over the steps of [B, T, features]; `output` chooses what it gives on."""
