"""How much work a layer is: multiply-adds of its forward pass, counted from its weights and its shapes."""

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

# B rows in the batch, T steps, E features of a step

#: Their weights are looked up, or used once an element, which costs little beside any product.
_CHEAP = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


def work_of(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Multiply-adds of one call: each weight is used once at each place, and an attention multiplies every
    step with every other.

    A place is one of the output where features are its last axis (Linear) or its second (a convolution), one
    of the input for a transposed convolution, and a step of the input for what goes over steps. 0 for what
    has no matrix of weights.
    """
    weights = sum(p.numel() for p in module.parameters() if p.dim() > 1)
    if not weights or isinstance(module, _CHEAP):
        return 0
    match module:
        case _ConvTransposeNd():
            places = x.numel() // module.in_channels
        case _ConvNd():
            places = output.numel() // module.out_channels
        case nn.Linear() | nn.Bilinear():
            places = output.numel() // module.out_features
        case _:
            places = x.numel() // max(1, x.shape[-1])
    return weights * places + sum(
        2 * x.numel() * x.shape[-2]  # scores and their use: two products of [T, E] and [E, T] a row
        for part in module.modules()
        if isinstance(part, nn.MultiheadAttention) and x.dim() > 1
    )
