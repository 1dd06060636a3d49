"""Attention that gives one tensor, and what tells it where in a sequence it is."""

import math

import torch
from torch import Tensor, nn

# B rows in the batch, T steps, E features of a step


class MultiheadAttention(nn.MultiheadAttention):
    """Attention of the first input to the second (keys) and third (values): with one input to itself, with
    two the second is both. Gives [B, T, E] without the attention's weights."""

    def forward(  # type: ignore[override]  # torch's gives the weights beside it
        self, query_BTE: Tensor, key_BSE: Tensor | None = None, value_BSE: Tensor | None = None
    ) -> Tensor:
        key_BSE = query_BTE if key_BSE is None else key_BSE
        value_BSE = key_BSE if value_BSE is None else value_BSE
        output_BTE, _ = super().forward(query_BTE, key_BSE, value_BSE, need_weights=False)
        return output_BTE


class PositionalEncoding(nn.Module):
    """Adds to each step of [B, T, E] where it stands, then drops some. Has no parameters.

    Vaswani et al. 2017, "Attention Is All You Need", section 3.5, https://arxiv.org/abs/1706.03762:

        PE(t, 2i) = sin(t / 10000^(2i / E)),  PE(t, 2i + 1) = cos(t / 10000^(2i / E))

    Computed for each batch: a table would be a buffer that no `state_dict` of a plain script has.
    """

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTE: Tensor) -> Tensor:
        out: Tensor = self.dropout(x_BTE + positions(x_BTE.shape[1], x_BTE.shape[2], x_BTE))
        return out


def positions(num_steps: int, num_features: int, like: Tensor) -> Tensor:
    """[T, E] on the device and in the dtype of `like`; the angles are taken in float32."""
    t_T1 = torch.arange(num_steps, dtype=torch.float32, device=like.device)[:, None]
    pair_E = torch.arange(num_features, device=like.device) // 2
    angle_TE = t_T1 * torch.exp(pair_E * (-2 * math.log(10000.0) / num_features))
    is_even_E = torch.arange(num_features, device=like.device) % 2 == 0
    return torch.where(is_even_E, angle_TE.sin(), angle_TE.cos()).to(like.dtype)
