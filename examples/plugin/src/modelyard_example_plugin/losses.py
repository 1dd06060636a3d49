"""A loss for classes that are seldom right."""

from torch import Tensor, nn
from torch.nn import functional as F


class FocalLoss(nn.Module):
    """The mean of (1 - p)^gamma * -log p, with p the softmax score of the true class (Lin et al. 2017, "Focal
    loss for dense object detection", equation 4, https://arxiv.org/abs/1708.02002)."""

    tasks = ("classification",)

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """[B, C] scores and [B] class indices to one number."""
        log_p = F.log_softmax(outputs, dim=1).gather(1, targets[:, None]).squeeze(1)
        return ((1 - log_p.exp()) ** self.gamma * -log_p).mean()
