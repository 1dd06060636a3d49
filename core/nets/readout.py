"""From what a net gives to what a prediction says: scores of classes, or values in the target's unit."""

from typing import Literal, assert_never

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional as F

from core.data.target_columns import Scaling
from core.data.targets import Targets
from core.data.tasks import DEFAULT_LOSSES, ONE_OUTPUT_LOSSES
from modelyard.specs.jobspec import Component

# B rows in the batch, K classes, labels or values

#: What stands between the net's output and the answer; the inverse of what the loss applies itself.
#: `mean` keeps the first half (GaussianNLLLoss); `cosine`, `difference` and `nearer` compare several outputs:
#: their cosine similarity, first minus second, and how much nearer to the first the second is than the third.
Activation = Literal["softmax", "sigmoid", "exp", "none", "mean", "cosine", "difference", "nearer"]

#: From this score on a label of a multilabel task holds.
HOLDS = 0.5

Outputs = Tensor | tuple[Tensor, ...]

#: A margin is no probability: its softmax or sigmoid
#: keeps the order, and brings the scores between 0 and 1.
_ACTIVATIONS: dict[str, Activation] = {
    "CrossEntropyLoss": "softmax",
    "NLLLoss": "exp",
    "MultiMarginLoss": "softmax",
    "BCELoss": "none",
    "BCEWithLogitsLoss": "sigmoid",
    "SoftMarginLoss": "sigmoid",
    "MultiLabelMarginLoss": "sigmoid",
    "MultiLabelSoftMarginLoss": "sigmoid",
    "MSELoss": "none",
    "L1Loss": "none",
    "SmoothL1Loss": "none",
    "HuberLoss": "none",
    "KLDivLoss": "exp",
    "PoissonNLLLoss": "exp",
    "GaussianNLLLoss": "mean",
    "HingeEmbeddingLoss": "none",
    "CosineEmbeddingLoss": "cosine",
    "MarginRankingLoss": "difference",
    "TripletMarginLoss": "nearer",
}


class Readout(Struct, frozen=True, omit_defaults=True):
    """`is_binary`: one output is the score of the second of two classes. `p` is the norm of a distance."""

    activation: Activation
    is_binary: bool = False
    scaling: Scaling | None = None
    p: float = 2.0


def has_one_output(loss_type: str, targets: Targets) -> bool:
    """Whether two classes are told apart by one number."""
    return (
        targets.task == "classification"
        and loss_type in ONE_OUTPUT_LOSSES
        and not targets.is_one_hot
        and len(targets.classes or []) == 2
    )


def readout_of(loss: Component, targets: Targets, scaling: Scaling | None = None) -> Readout:
    """A loss that is not torch's own is read as its task's usual one."""
    loss_type = loss["type"]
    activation = _ACTIVATIONS.get(loss_type) or _ACTIVATIONS[DEFAULT_LOSSES[targets.task]]
    if loss_type == "PoissonNLLLoss" and not loss.get("log_input", True):
        activation = "none"
    if loss_type == "KLDivLoss" and loss.get("log_target", False):
        activation = "none"  # targets are logarithms, and so is what is answered
    return Readout(activation, has_one_output(loss_type, targets), scaling, float(loss.get("p", 2.0)))


def read_out(readout: Readout, outputs: Outputs) -> Tensor:
    """[B, K] scores of all classes or labels, or values [B, …]; float32, where scaled float64."""
    answers = _activated(readout, outputs)
    if readout.is_binary:
        second_B1 = answers.reshape(answers.shape[0], 1)
        return torch.cat([1 - second_B1, second_B1], dim=1)
    return answers if readout.scaling is None else restored(readout.scaling, answers)


def restored(scaling: Scaling, values: Tensor) -> Tensor:
    """Values [B, …] as the loss sees them, in the target's unit; float64."""
    flat_BK = values.double().reshape(values.shape[0], -1)
    mean_K, std_K = flat_BK.new_tensor(scaling.mean), flat_BK.new_tensor(scaling.std)
    flat_BK = flat_BK * std_K + mean_K
    return (flat_BK.expm1() if scaling.is_log else flat_BK).reshape(values.shape)


def _activated(readout: Readout, outputs: Outputs) -> Tensor:
    several = [output.float() for output in outputs] if isinstance(outputs, tuple) else [outputs.float()]
    first = several[0]
    match readout.activation:
        case "softmax":
            return first.softmax(dim=1)
        case "sigmoid":
            return first.sigmoid()
        case "exp":
            return first.exp()
        case "none":
            return first
        case "mean":
            return first.chunk(2, dim=-1)[0]
        case "cosine":
            return F.cosine_similarity(first, several[1])
        case "difference":
            return first.reshape(-1) - several[1].reshape(-1)
        case "nearer":
            positive_B, negative_B = (F.pairwise_distance(first, other, p=readout.p) for other in several[1:])
            return negative_B - positive_B
    assert_never(readout.activation)
