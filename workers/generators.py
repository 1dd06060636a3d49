"""Every generator that a training may draw from: seeded together, saved together, put back together.

A sample's transforms draw from none of them (core/nets/randomness.py): dropout and batch mixing do.
"""

import random
from typing import Any

import numpy as np
import torch

_NUMPY = "MT19937"


def seed_all(seed: int, rank: int = 0) -> None:
    """Python, numpy, torch and every GPU. Ranks draw differently, as their rows are different ones."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def state_of_all(device: torch.device) -> dict[str, Any]:
    """Tensors and plain values only, so that `torch.load(weights_only=True)` takes them."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state()
    _, keys, place, has_gauss, cached = numpy
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(place), int(has_gauss), float(cached)],
    }


def restore_all(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((_NUMPY, keys.numpy().astype(np.uint32), place, has_gauss, cached))
