"""Randomness as a function: the same (seed, epoch, index, draw) gives the same bits, whatever ran before.

The mixer is splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
OOPSLA, https://doi.org/10.1145/2660193.2660195, figure 14 with the constants of Stafford's variant 13):

    z = x + 0x9e3779b97f4a7c15
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb
    mix(x) = z ^ (z >> 31)                                    all modulo 2**64, shifts without sign

and a tuple of words is absorbed one by one: h = 0, then h = mix(h ^ word) for each.
"""

import torch
from torch import Tensor

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

#: The draw that orders an epoch; the transforms of a pipeline draw 0, 1, 2, …
_PERMUTATION = 2**32


def mix(x: int) -> int:
    """One step of splitmix64 from the state x, in 0..2**64 - 1."""
    z = (x + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def hash_words(seed: int, epoch: int, index: int, draw: int) -> int:
    """64 bits for one draw of one row in one epoch; what `torch.Generator.manual_seed` takes."""
    h = 0
    for word in (seed, epoch, index, draw):
        h = mix(h ^ (word & _MASK))
    return h


def hash_rows(seed: int, epoch: int, indices_B: Tensor, draw: int) -> Tensor:
    """`hash_words` for many rows: int64 [B] on the indices' device, the same bits as two's complement."""
    h = mix(mix(seed & _MASK) ^ (epoch & _MASK))
    h_B = absorb(indices_B.to(torch.int64), _signed(h))
    return absorb(h_B, draw)


def absorb(keys: Tensor, word: int | Tensor) -> Tensor:
    """One more word of a tuple, or one for each key: int64, on the keys' device."""
    return _mix_tensor(keys ^ word)


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of n rows in an epoch, int64 [n]: rows sorted by their hash. Not `torch.randperm`, whose
    stream a torch release may change."""
    keys_N = hash_rows(seed, epoch, torch.arange(n, dtype=torch.int64), _PERMUTATION)
    return torch.argsort(keys_N, stable=True)


def _mix_tensor(x: Tensor) -> Tensor:
    # int64 wraps in sums and products as two's complement does, so the bits are those of uint64.
    z = x + _signed(_GAMMA)
    z.bitwise_xor_(_shift(z, 30)).mul_(_signed(_MIX_1))
    z.bitwise_xor_(_shift(z, 27)).mul_(_signed(_MIX_2))
    return z.bitwise_xor_(_shift(z, 31))


def _shift(z: Tensor, bits: int) -> Tensor:
    """Right without the sign: torch shifts int64 arithmetically, so the copies of the sign are masked off."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
