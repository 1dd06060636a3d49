"""Numbers for the rows of a batch: functions of each row's 64-bit key, on the key's device.

A key is `randomness.hash_rows(seed, epoch, indices_B, draw)`. The k-th word of a row is its key with k
absorbed, so that words are as many as are asked for and none depends on how many that were.
"""

from math import pi

import torch
from torch import Tensor

from core.nets.randomness import absorb

# B rows in the batch, N numbers for each

#: Words are counted from 0, branches from here.
_BRANCHES = 2**32

_LOW_32 = 2**32 - 1


def words(key_B: Tensor, count: int) -> Tensor:
    """64 random bits each: int64 [count, B]."""
    return absorb(key_B, torch.arange(count, device=key_B.device).view(-1, *[1] * key_B.ndim))


def uniforms(key_B: Tensor, count: int) -> Tensor:
    """float32 [count, B], multiples of 2**-24 in [0, 1)."""
    return to_uniform(words(key_B, count))


def to_uniform(words_NB: Tensor) -> Tensor:
    # The upper 24 bits: what float32 holds without rounding, so that 1 never comes out.
    return ((words_NB >> 40) & 0xFFFFFF).to(torch.float32) * 2**-24


def to_integer(words_NB: Tensor, below: int | Tensor) -> Tensor:
    """int64 in 0..below - 1, for `below` up to 2**31; no value is more than 2**-32 likelier than another."""
    return (((words_NB >> 32) & _LOW_32) * below) >> 32


def between(uniform_B: Tensor, low: float, high: float) -> Tensor:
    """float64; `low` itself where both are one number."""
    return uniform_B.to(torch.float64) * (high - low) + low


def orders(words_NB: Tensor) -> Tensor:
    """A permutation of 0..N - 1 for each row: int64 [N, B]."""
    return torch.argsort(words_NB, dim=0, stable=True)


def normals(key_B: Tensor, count: int) -> Tensor:
    """float32 [B, count] with mean 0 and variance 1, two from the halves of a word: Box and Muller 1958, "A
    note on the generation of random normal deviates", https://doi.org/10.1214/aoms/1177706645."""
    words_BN = absorb(key_B.view(-1, 1), torch.arange((count + 1) // 2, device=key_B.device))
    # Half a step above the multiple of 2**-32, as 0 has no logarithm.
    first = (((words_BN >> 32) & _LOW_32).to(torch.float32) + 0.5) * 2**-32
    angle = (words_BN & _LOW_32).to(torch.float32) * (2 * pi * 2**-32)
    radius = (first.log() * -2).sqrt()
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def branch(key_B: Tensor, child: int) -> Tensor:
    """Keys for what one transform holds, whose words are none of the holder's."""
    return absorb(key_B, _BRANCHES + child)
