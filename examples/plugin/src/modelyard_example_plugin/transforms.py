"""A transform of pixels."""

from torch import Tensor, nn


class Pixelate(nn.Module):
    """Squares of `size` pixels that all have the value of their upper left one."""

    is_random = False
    takes = "any"
    keeps_size = True

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size is at least 1, got {size}")
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """[..., H, W] to the same."""
        height, width = image.shape[-2:]
        coarse = image[..., :: self.size, :: self.size]
        fine = coarse.repeat_interleave(self.size, dim=-2).repeat_interleave(self.size, dim=-1)
        return fine[..., :height, :width]
