"""Losses of torch whose arguments are brought from (outputs, targets) as a net and a dataset give them.

Each is a subclass under the name of the class it extends: reductions and keywords stay torch's own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# B rows in the batch, K labels or values, D width of an embedding


class BCELoss(nn.BCELoss):
    """The binary cross entropy of probabilities. It is always computed in float32: torch refuses it under
    autocast."""

    def forward(self, outputs_BK: Tensor, targets_BK: Tensor) -> Tensor:
        with torch.autocast(outputs_BK.device.type, enabled=False):
            return super().forward(outputs_BK.float(), targets_BK)


class SoftMarginLoss(nn.SoftMarginLoss):
    """log(1 + exp(-y x)) with y = 1 and -1, from targets of 1 and 0."""

    def forward(self, outputs_BK: Tensor, targets_BK: Tensor) -> Tensor:
        return super().forward(outputs_BK, 2 * targets_BK - 1)


class MultiLabelMarginLoss(nn.MultiLabelMarginLoss):
    """The margin between the labels that hold and those that don't. torch takes the labels of a row as a
    list of indices closed by -1: it is made here from 0 and 1."""

    def forward(self, outputs_BK: Tensor, targets_BK: Tensor) -> Tensor:
        # A stable sort by "does not hold" puts the indices that hold first, in their order.
        holds_BK = targets_BK > 0.5
        indices_BK = holds_BK.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        count_B1 = holds_BK.sum(dim=1, keepdim=True)
        places_K = torch.arange(targets_BK.shape[1], device=targets_BK.device)
        return super().forward(outputs_BK, torch.where(places_K < count_B1, indices_BK, -1))


class GaussianNLLLoss(nn.GaussianNLLLoss):
    """The net gives twice the target's values: the first half of the last dimension are the means, the second
    half becomes the variances by a softplus (Nix and Weigend 1994 let a second unit give the variance)."""

    def forward(self, outputs_B2K: Tensor, targets_BK: Tensor) -> Tensor:  # type: ignore[override]  # one output
        mean_BK, raw_BK = outputs_B2K.chunk(2, dim=-1)
        return super().forward(mean_BK, targets_BK.reshape(mean_BK.shape), F.softplus(raw_BK))


class HingeEmbeddingLoss(nn.HingeEmbeddingLoss):
    """The output is a distance: small where the target is 1, at least `margin` where it is -1."""


class CosineEmbeddingLoss(nn.CosineEmbeddingLoss):
    """Two outputs [rows, D] of a Graph: alike where the target is 1, unlike where it is -1."""

    def forward(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:  # type: ignore[override]  # two outputs
        first_BD, second_BD = outputs
        return super().forward(first_BD, second_BD, targets.reshape(-1))


class MarginRankingLoss(nn.MarginRankingLoss):
    """Two outputs of a Graph, one score a row each: the first is the higher where the target is 1, the second
    where it is -1."""

    def forward(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:  # type: ignore[override]  # two outputs
        first_B, second_B = outputs
        return super().forward(first_B.reshape(-1), second_B.reshape(-1), targets.reshape(-1))


class TripletMarginLoss(nn.TripletMarginLoss):
    """Three outputs [rows, D] of a Graph: anchor, positive, negative. There is no target."""

    def forward(self, outputs: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> Tensor:  # type: ignore[override]  # three outputs
        del targets
        return super().forward(*outputs)


class OneHotTargets(nn.Module):
    """A loss that sees class indices [B] as ones among zeros [B, C]. Targets that are probabilities already
    (of mixed rows) go through."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs_BC: Tensor, targets: Tensor) -> Tensor:
        if targets.dtype == torch.int64:
            # F.one_hot would look for the greatest index, which is a sync on a GPU.
            classes_C = torch.arange(outputs_BC.shape[1], device=targets.device)
            targets = (targets[:, None] == classes_C).to(torch.float32)
        found: Tensor = self.loss(outputs_BC, targets)
        return found
