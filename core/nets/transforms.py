"""What happens to an image's pixels between the decoder and the net.

A pipeline is a resolved list of transforms in two parts. The prefix (leading deterministic transforms that
stay uint8: resize, grey) is the same in every epoch, so it is applied once and cached. The rest runs per
batch: deterministic transforms on the whole batch, random ones per sample, each sample seeded by
(seed, epoch, index in the dataset, draw), so that its pixels don't depend on who else is in the batch.
Transforms that mix the rows of a batch come after all others, and are `mixing.py`'s.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torchvision
from msgspec import Struct
from torch import Tensor
from torchvision.transforms import v2

from core.nets import plugins, registry
from core.nets.components.transforms import COMPOSE, FACTS, TO_DTYPE, Fact
from core.nets.randomness import hash_rows

# B rows in the batch, C channels, H height, W width

Component = dict[str, Any]

TO_FLOAT: Component = {"type": TO_DTYPE, "dtype": "float32", "scale": True}

#: Rows of one size are one tensor; between a transform that gives each a size of its own and one that ends
#: that, they are a list.
_Rows = Tensor | list[Tensor]


def fact_of(component: Component) -> Fact:
    return FACTS.get(component["type"], _UNKNOWN)


def held(component: Component) -> list[Component]:
    """The transforms in a container; empty for any other."""
    children: list[Component] = component.get("transforms", [])
    return children


def is_random(component: Component) -> bool:
    """A container of one of several ways is random as a whole; a Compose is where a member is."""
    if component["type"] == COMPOSE:
        return any(is_random(child) for child in held(component))
    fact = fact_of(component)
    if fact.range is not None:
        return isinstance(component[fact.range], list) and len(set(component[fact.range])) > 1
    return fact.is_random


def is_mixing(component: Component) -> bool:
    """Whether it acts on a batch and its labels: MixUp, CutMix, and containers of nothing else."""
    children = held(component)
    return all(map(is_mixing, children)) if children else fact_of(component).mixes


def flatten(components: Sequence[Component]) -> list[Component]:
    """The members of each Compose in its place; those inside other containers stay."""
    flat: list[Component] = []
    for component in components:
        flat += flatten(held(component)) if component["type"] == COMPOSE else [component]
    return flat


def resolve(components: Sequence[Component]) -> list[Component]:
    """The list without Compose, and with `ToDtype(float32, scale=true)` put before the first transform that
    needs float, else at the end; without that where a ToDtype or its like is in the list."""
    resolved = flatten(components)
    if any(fact_of(component).is_cast for component in _walk(resolved)):
        return resolved
    needs_float = (i for i, c in enumerate(resolved) if any(fact_of(d).takes == "float" for d in _walk([c])))
    place = next(needs_float, len(resolved))
    return [*resolved[:place], dict(TO_FLOAT), *resolved[place:]]


def without_random(components: Sequence[Component]) -> list[Component]:
    return [component for component in flatten(components) if not is_random(component)]


def prefix_length(resolved: Sequence[Component]) -> int:
    """How many leading transforms are deterministic and leave uint8 as it is."""
    return next((i for i, component in enumerate(resolved) if not _is_cached(component)), len(resolved))


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
        # One that is random by its range draws from that range even where it holds one number.
        self._draws = any(fact_of(step.component).is_random for step in rest)
        #: [C', H', W'] of what the prefix makes of [C, H, W], without an image of it. Raises what torchvision
        #: raises for an image that it refuses.
        self.prefix_shape = lru_cache(maxsize=256)(self._prefix_shape)

    @classmethod
    def from_spec(cls, resolved: Sequence[Component]) -> "Pipeline":
        """Raises what torchvision raises for values it refuses. Leaves out what mixes batches."""
        alone = [component for component in resolved if not is_mixing(component)]
        steps: list[Step] = []
        draws = 0
        for component in alone:
            draw = draws if is_random(component) else None
            steps.append(Step(component, registry.construct("transform", component), draw))
            draws += draw is not None
        cut = prefix_length(alone)
        return cls(tuple(steps[:cut]), tuple(steps[cut:]))

    @property
    def is_random(self) -> bool:
        return any(step.draw is not None for step in self.rest)

    def prefix_key(self) -> str:
        """Equal for prefixes that make equal pixels; torchvision's version is in it, as resizes change, and
        those of plugins."""
        components = [step.component for step in self.prefix]
        versions = [torchvision.__version__, plugins.used(components)]
        text = json.dumps([versions, components], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def apply_prefix(self, image_CHW: Tensor) -> Tensor:
        """uint8 [C, H, W] to uint8 [C', H', W']."""
        for step in self.prefix:
            image_CHW = step.apply(image_CHW)
        return image_CHW

    def _prefix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.apply_prefix(torch.empty(shape, dtype=torch.uint8, device="meta")).shape)

    def apply_rest(
        self, batch_BCHW: Tensor, seed: int, epoch: int, indices: Sequence[int] | Tensor
    ) -> Tensor:
        """uint8 [B, C, H, W] to float32 [B, C', H', W']; `indices` are the rows' places in the dataset.

        The caller's state of torch's generator is the same after as before. Raises RuntimeError where rows
        end with sizes of their own.
        """
        state = torch.default_generator.get_state() if self._draws else None
        rows: _Rows = batch_BCHW
        try:
            for step in self.rest:
                if step.draw is not None:
                    seeds = hash_rows(seed, epoch, torch.as_tensor(indices), step.draw).tolist()
                    rows = _stacked([_seeded(step.apply, x, s) for x, s in zip(rows, seeds, strict=True)])
                elif isinstance(rows, Tensor):
                    rows = step.apply(rows)
                else:
                    rows = _stacked([step.apply(x) for x in rows])
        finally:
            if state is not None:
                torch.default_generator.set_state(state)
        return rows if isinstance(rows, Tensor) else torch.stack(rows)


_UNKNOWN = Fact()


def _walk(components: Sequence[Component]) -> Iterator[Component]:
    for component in components:
        yield component
        yield from _walk(held(component))


def _is_cached(component: Component) -> bool:
    fact = fact_of(component)
    return not fact.is_random and not fact.is_cast and fact.takes != "float"


def _seeded(transform: v2.Transform, image_CHW: Tensor, seed: int) -> Tensor:
    # The CPU generator alone: torch.manual_seed would also seed every GPU, a thousand times slower.
    torch.default_generator.manual_seed(seed)
    out: Tensor = transform(image_CHW)
    return out


def _stacked(rows: list[Tensor]) -> _Rows:
    return torch.stack(rows) if len({row.shape for row in rows}) == 1 else rows
