"""Fractional max pooling that answers alike each time: torch's draws its windows in eval too."""

from torch import Tensor, nn
from torch.nn import functional as F

# B rows in the batch, C channels

#: Windows start where a draw of this puts them (Graham 2014, "Fractional Max-Pooling", section 3,
#: https://arxiv.org/abs/1412.6071, calls it u), between its bounds 0 and 1.
_MIDDLE = 0.5


class FractionalMaxPool2d(nn.FractionalMaxPool2d):
    """Max pooling over windows that are drawn in training, and fixed in eval."""

    def forward(self, x: Tensor) -> Tensor:
        samples = None if self.training else x.new_full((*x.shape[:2], 2), _MIDDLE)
        out: Tensor = F.fractional_max_pool2d(
            x, self.kernel_size, self.output_size, self.output_ratio, _random_samples=samples
        )
        return out


class FractionalMaxPool3d(nn.FractionalMaxPool3d):
    """Max pooling over windows that are drawn in training, and fixed in eval."""

    def forward(self, x: Tensor) -> Tensor:
        samples = None if self.training else x.new_full((*x.shape[:2], 3), _MIDDLE)
        out: Tensor = F.fractional_max_pool3d(
            x, self.kernel_size, self.output_size, self.output_ratio, _random_samples=samples
        )
        return out
