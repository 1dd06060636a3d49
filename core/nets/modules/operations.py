"""What joins tensors in a Graph, by the name of torch's function. They have no parameters."""

import torch
from torch import Tensor, nn

# B rows in the batch


class add(nn.Module):
    """The sum of two inputs or more, broadcast as torch does."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


class mul(nn.Module):
    """The product of two inputs or more, element by element, broadcast as torch does."""

    def forward(self, *inputs: Tensor) -> Tensor:
        product = inputs[0]
        for x in inputs[1:]:
            product = product * x
        return product


class cat(nn.Module):
    """Two inputs or more, one behind the other along `dim`; never along the batch."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=self.dim)


class matmul(nn.Module):
    """The matrix product of two inputs over their last two dimensions."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x, y)


class mean(nn.Module):
    """The mean of one input along `dim`, as over the steps of a sequence; never along the batch."""

    def __init__(self, dim: int = 1, keepdim: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=self.dim, keepdim=self.keepdim)


class chunk(nn.Module):
    """One input cut into `chunks` equal parts along `dim`; a Graph names them `node[0]`, `node[1]`, …"""

    def __init__(self, chunks: int, dim: int = 1) -> None:
        super().__init__()
        self.chunks = chunks
        self.dim = dim

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.chunk(x, self.chunks, dim=self.dim)
