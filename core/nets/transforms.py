"""What happens to an image's pixels between the decoder and the net.

A pipeline is a resolved list of transforms in two parts. The prefix (leading deterministic transforms that
stay uint8: resize, grey) is the same in every epoch, so it is applied once and cached. The rest runs per
batch and on its device: deterministic transforms and those with a form in `augment/` on the whole batch, the
other random ones row by row. Whatever is random is a function of (seed, epoch, index in the dataset, draw),
so that a row's pixels don't depend on who else is in the batch. Transforms that mix the rows of a batch come
after all others, and are `mixing.py`'s.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
import torchvision
from msgspec import Struct
from torch import Tensor
from torchvision.transforms import v2

from core.nets import plugins, registry
from core.nets.augment.levels import normalize_levels
from core.nets.augment.table import Form, Rows, form_of
from core.nets.components.transforms import COMPOSE, FACTS, TO_DTYPE, Fact
from core.nets.randomness import hash_rows
from core.nets.refusals import REFUSALS

# B rows in the batch, C channels, H height, W width

Component = dict[str, Any]

TO_FLOAT: Component = {"type": TO_DTYPE, "dtype": "float32", "scale": True}


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
    """`draw` numbers the random transforms of a pipeline; None for a deterministic one. `form` does the same
    to a whole batch at once."""

    component: Component
    apply: Callable[[Tensor], Tensor]
    draw: int | None
    form: Form | None = None

    @property
    def needs_generator(self) -> bool:
        # One that is random by its range draws from that range even where it holds one number.
        return self.form is None and fact_of(self.component).is_random


class Pipeline:
    """Built once from a resolved list; applying it changes nothing in it."""

    def __init__(self, prefix: tuple[Step, ...], rest: tuple[Step, ...]) -> None:
        self.prefix = prefix
        self.rest = rest
        #: Whether it draws from torch's default generator, seeded for each row: then two threads may not
        #: apply it at once.
        self.needs_generator = any(step.needs_generator for step in rest)
        self._fast_rest = _fused(rest)
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
            made = registry.construct("transform", component)
            form = form_of(made) if _draws(component) else None
            steps.append(Step(component, made, draw, form))
            draws += draw is not None
        cut = prefix_length(alone)
        return cls(tuple(steps[:cut]), tuple(steps[cut:]))

    @property
    def is_random(self) -> bool:
        return any(step.draw is not None for step in self.rest)

    def takes_any_size(self, channels: int) -> bool:
        """Whether the prefix brings images of all heights and widths to one."""
        try:
            return len({self.prefix_shape((channels, *size)) for size in _SIZES}) == 1
        except REFUSALS:
            return False

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

    def apply_rest(self, rows: Rows, seed: int, epoch: int, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 [B, C, H, W], or a list of [C, h, w] that differ in size, to float32 [B, C', H', W'] on the
        same device; `indices` are the rows' places in the dataset.

        The caller's state of torch's generator is the same after as before. Raises RuntimeError where rows
        end with sizes of their own.
        """
        state = torch.default_generator.get_state() if self.needs_generator else None
        try:
            return self._apply_by_parts(rows, seed, epoch, torch.as_tensor(indices))
        finally:
            if state is not None:
                torch.default_generator.set_state(state)

    def _apply_by_parts(self, rows: Rows, seed: int, epoch: int, indices_B: Tensor) -> Tensor:
        size = _rows_at_once(rows)
        out = self._apply_to_part(rows[:size], seed, epoch, indices_B[:size])
        if size < len(rows):
            # Each part is freed before the next is made: its memory is still in the cache.
            first, out = out, out.new_empty((len(rows), *out.shape[1:]))
            out[:size] = first
            del first
            for start in range(size, len(rows), size):
                part = slice(start, start + size)
                out[part] = self._apply_to_part(rows[part], seed, epoch, indices_B[part])
        return out

    def _apply_to_part(self, rows: Rows, seed: int, epoch: int, indices_B: Tensor) -> Tensor:
        for step in self._fast_rest:
            rows = _applied(step, rows, partial(hash_rows, seed, epoch, draw=step.draw or 0), indices_B)
        return rows if isinstance(rows, Tensor) else torch.stack(rows)


_UNKNOWN = Fact()

_PIXELS_AT_ONCE = 2**20

#: Heights and widths that have little to do with each other.
_SIZES = ((61, 47), (128, 31), (97, 353))


def _walk(components: Sequence[Component]) -> Iterator[Component]:
    for component in components:
        yield component
        yield from _walk(held(component))


def _is_cached(component: Component) -> bool:
    fact = fact_of(component)
    return not fact.is_random and not fact.is_cast and fact.takes != "float"


def _rows_at_once(rows: Rows) -> int:
    """Of large images so few that what each step makes of them is in the CPU's cache for the next; a GPU
    takes all. No row's pixels depend on it."""
    if len(rows) == 0 or rows[0].device.type != "cpu":
        return max(len(rows), 1)
    return max(1, _PIXELS_AT_ONCE // max(rows[0].numel(), 1))


def _draws(component: Component) -> bool:
    """Whether it makes draws, be they from one number."""
    return fact_of(component).is_random or is_random(component)


def _applied(step: Step, rows: Rows, key_of: Callable[..., Tensor], indices_B: Tensor) -> Rows:
    if step.form is not None:
        device = rows[0].device
        out = step.form(rows, key_of(indices_B=indices_B.to(device, non_blocking=True)))
        return out if isinstance(out, Tensor) else _stacked(out)
    if step.draw is not None:
        seeds = key_of(indices_B=indices_B).tolist()
        # On the CPU: a GPU's draws would be others, from a generator of its own. Each way is a device sync.
        drawn = [_seeded(step.apply, x.cpu(), s).to(x.device) for x, s in zip(rows, seeds, strict=True)]
        return _stacked(drawn)
    return step.apply(rows) if isinstance(rows, Tensor) else _stacked([step.apply(x) for x in rows])


def _seeded(transform: Callable[[Tensor], Tensor], image_CHW: Tensor, seed: int) -> Tensor:
    # The CPU generator alone: torch.manual_seed would also seed every GPU, a thousand times slower.
    torch.default_generator.manual_seed(seed)
    return transform(image_CHW)


def _stacked(rows: list[Tensor]) -> Rows:
    return torch.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _fused(rest: Sequence[Step]) -> list[Step]:
    """With ToDtype and the Normalize that follows it as one."""
    fused: list[Step] = []
    for step in rest:
        before = fused[-1].apply if fused else None
        if isinstance(before, v2.ToDtype) and isinstance(step.apply, v2.Normalize):
            fused[-1] = Step(step.component, partial(_normalized, cast=before, norm=step.apply), None)
        else:
            fused.append(step)
    return fused


def _normalized(x: Tensor, cast: v2.ToDtype, norm: v2.Normalize) -> Tensor:
    is_usual = x.dtype == torch.uint8 and cast.dtype == torch.float32 and cast.scale
    if is_usual and len(norm.mean) == len(norm.std) and all(norm.std):
        return normalize_levels(x, norm.mean, norm.std)
    out: Tensor = norm(cast(x))
    return out
