"""Which labels are likely wrong, by the probabilities that a net gives: confident learning.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70,
https://doi.org/10.1613/jair.1.12125. With p_j(x) the probability of class j for row x, and X_j the rows that
bear the label j, a class is believed in from its threshold on (their equation 2):

    t_j = mean of p_j(x) over x in X_j

A row x of label i is counted as one of class j (their equation 1) where p_j(x) >= t_j, and j is the most
probable class of those whose threshold is reached. It is likely wrong where j is not i. Their method ranks
by the margin p_i(x) - max_j!=i p_j(x); here each probability is taken against its threshold,

    score(x) = (p_i(x) - t_i) - max_j!=i (p_j(x) - t_j)

so that a class that the net is never sure of does not fill the list.

Where we differ: the paper takes probabilities of rows that the net was not trained on, by cross-validation.
Here one net judges its own training rows. One that has learned them by heart doubts none of them.
"""

import torch
from msgspec import Struct
from torch import Tensor

# N rows, C classes


class Doubts(Struct, frozen=True):
    """Of N rows: `score_N` float32, `is_likely_N` bool, `predicted_N` int64 class indices."""

    score_N: Tensor
    is_likely_N: Tensor
    predicted_N: Tensor


def doubts(scores_NC: Tensor, labels_N: Tensor) -> Doubts:
    """`scores_NC` are probabilities, `labels_N` int64."""
    given_N1 = labels_N[:, None]
    threshold_C = thresholds(scores_NC, labels_N)
    ahead_NC = scores_NC - threshold_C
    others_NC = ahead_NC.scatter(1, given_N1, -torch.inf)
    believed_NC = torch.where(ahead_NC >= 0, scores_NC, -torch.inf)
    most_N = believed_NC.argmax(dim=1)
    is_likely_N = (believed_NC.amax(dim=1) > -torch.inf) & (most_N != labels_N)
    return Doubts(
        ahead_NC.gather(1, given_N1)[:, 0] - others_NC.amax(dim=1),
        is_likely_N,
        torch.where(is_likely_N, most_N, scores_NC.argmax(dim=1)),
    )


def thresholds(scores_NC: Tensor, labels_N: Tensor) -> Tensor:
    """t_C; infinite for a class that no row bears."""
    own_N = scores_NC.gather(1, labels_N[:, None])[:, 0]
    sum_C = torch.zeros_like(scores_NC[0]).index_add_(0, labels_N, own_N)
    count_C = torch.zeros_like(sum_C).index_add_(0, labels_N, torch.ones_like(own_N))
    return torch.where(count_C > 0, sum_C / count_C.clamp(min=1), torch.inf)
