"""What happens to an image's pixels between the decoder and the net.

A pipeline is a resolved list of transforms in two parts. The prefix (leading deterministic transforms that
stay uint8: resize, grey) is the same in every epoch, so it is applied once and cached. The rest runs per
batch: deterministic transforms on the whole batch, random ones per sample, each sample seeded by
(seed, epoch, index in the dataset, draw), so that its pixels don't depend on who else is in the batch.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from msgspec import Struct
from torch import Tensor
from torchvision.transforms import v2

from core.nets import registry
from core.nets.components.transforms import NEEDS_FLOAT, RANDOM, TO_DTYPE
from core.nets.randomness import hash_rows

# B rows in the batch, C channels, H height, W width

Component = dict[str, Any]

TO_FLOAT: Component = {"type": TO_DTYPE, "dtype": "float32", "scale": True}


def resolve(components: Sequence[Component]) -> list[Component]:
    """The list with `ToDtype(float32, scale=true)` put before the first transform that needs float, else at
    the end; as it is where it has a ToDtype of its own."""
    resolved = list(components)
    if any(component["type"] == TO_DTYPE for component in resolved):
        return resolved
    place = next((i for i, c in enumerate(resolved) if c["type"] in NEEDS_FLOAT), len(resolved))
    return [*resolved[:place], dict(TO_FLOAT), *resolved[place:]]


def without_random(components: Sequence[Component]) -> list[Component]:
    return [component for component in components if component["type"] not in RANDOM]


def prefix_length(resolved: Sequence[Component]) -> int:
    """How many leading transforms are deterministic and leave uint8 as it is."""
    ends = RANDOM | NEEDS_FLOAT | {TO_DTYPE}
    return next((i for i, component in enumerate(resolved) if component["type"] in ends), len(resolved))


class Step(Struct, frozen=True):
    """`draw` numbers the random transforms of a pipeline; None for a deterministic one."""

    component: Component
    apply: v2.Transform
    draw: int | None


class Pipeline:
    """Built once from a resolved list; applying it changes nothing in it."""

    def __init__(self, prefix: tuple[Step, ...], rest: tuple[Step, ...]) -> None:
        self.prefix = prefix
        self.rest = rest

    @classmethod
    def from_spec(cls, resolved: Sequence[Component]) -> "Pipeline":
        """Raises what torchvision raises for values it refuses."""
        steps: list[Step] = []
        draws = 0
        for component in resolved:
            is_random = component["type"] in RANDOM
            steps.append(
                Step(component, registry.construct("transform", component), draws if is_random else None)
            )
            draws += is_random
        cut = prefix_length(resolved)
        return cls(tuple(steps[:cut]), tuple(steps[cut:]))

    @property
    def is_random(self) -> bool:
        return any(step.draw is not None for step in self.rest)

    def prefix_key(self) -> str:
        """Equal for prefixes that make equal pixels; torchvision's version is in it, as resizes change."""
        text = json.dumps([torchvision.__version__, [step.component for step in self.prefix]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def apply_prefix(self, image_CHW: Tensor) -> Tensor:
        """uint8 [C, H, W] to uint8 [C', H', W']."""
        for step in self.prefix:
            image_CHW = step.apply(image_CHW)
        return image_CHW

    def apply_rest(
        self, batch_BCHW: Tensor, seed: int, epoch: int, indices: Sequence[int] | Tensor
    ) -> Tensor:
        """uint8 [B, C, H, W] to float32 [B, C', H', W']; `indices` are the rows' places in the dataset.

        The caller's state of torch's generator is the same after as before.
        """
        state = torch.default_generator.get_state() if self.is_random else None
        try:
            for step in self.rest:
                if step.draw is None:
                    batch_BCHW = step.apply(batch_BCHW)
                else:
                    seeds = hash_rows(seed, epoch, torch.as_tensor(indices), step.draw).tolist()
                    batch_BCHW = torch.stack(
                        [_seeded(step.apply, x, s) for x, s in zip(batch_BCHW, seeds, strict=True)]
                    )
        finally:
            if state is not None:
                torch.default_generator.set_state(state)
        return batch_BCHW


def _seeded(transform: v2.Transform, image_CHW: Tensor, seed: int) -> Tensor:
    # The CPU generator alone: torch.manual_seed would also seed every GPU, a thousand times slower.
    torch.default_generator.manual_seed(seed)
    out: Tensor = transform(image_CHW)
    return out
