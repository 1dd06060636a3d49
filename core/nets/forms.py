"""Which form images have after each transform: channels, kind of numbers, and the sizes they may have.

A transform that keeps the size is tried on zeros, on a corner of the image; one that changes it, on the meta
device. Either costs the same for any image. What gives every sample a size of its own is followed by the
least and the greatest: sizes that come out grow with the height and shrink with the width that goes in, or
the other way round, so that the four corners of a range bound all that is in it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torchvision.transforms import v2

from core.faults import fault, first_line, join
from core.nets import registry
from core.nets.components.transforms import (
    COMPOSE,
    MOST,
    RANDOM_APPLY,
    RANDOM_CHOICE,
    RANDOM_ORDER,
    Size,
)
from core.nets.refusals import REFUSALS
from core.nets.transforms import Component, fact_of, held, is_random
from modelyard.specs import ProblemError

# C channels, H height, W width

#: The largest image that may come out of a transform, reach one that keeps the size, or reach the net.
MAX_PIXELS = 2048 * 2048

#: What keeps height and width is tried on a corner of this side.
_CORNER = 64


class Form(Struct, frozen=True):
    """`leading` are the dimensions before height and width. Sizes are between `low` and `high`."""

    leading: tuple[int, ...]
    dtype: torch.dtype
    low: Size
    high: Size

    @property
    def is_one_size(self) -> bool:
        return self.low == self.high

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.leading, *self.high)

    def corners(self) -> set[Size]:
        return {
            (height, width) for height in (self.low[0], self.high[0]) for width in (self.low[1], self.high[1])
        }

    def __str__(self) -> str:
        low, high = ([*self.leading, *size] for size in (self.low, self.high))
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{low} {dtype}" if self.is_one_size else f"{low} to {high} {dtype}"


def form_of(shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> Form:
    *leading, height, width = shape
    return Form(tuple(leading), dtype, (height, width), (height, width))


class Tracer:
    """Follows forms through checked components. `pointers` are those of the components, by their id."""

    def __init__(self, pointers: dict[int, str], pointer: str, errors: list[ProblemError]) -> None:
        self.pointers = pointers
        self.pointer = pointer
        self.errors = errors
        self._made: dict[int, v2.Transform] = {}

    def trace(self, components: Sequence[Component], form: Form) -> Form | None:
        """What comes out of all of them, one after another; None where one refuses, and then `errors` says
        why. torch's generator is as before."""
        state = torch.default_generator.get_state()
        try:
            return self._chain(components, form)
        finally:
            torch.default_generator.set_state(state)

    def refuse(self, component: Component, why: str) -> None:
        pointer = self.pointers.get(id(component), self.pointer)
        fault(self.errors, pointer, "invalid_value", f"{component['type']}: {why}.")

    def _chain(self, components: Sequence[Component], form: Form) -> Form | None:
        after: Form | None = form
        for component in components:
            if after is None:
                return None
            after = self._one(component, after)
        return after

    def _one(self, component: Component, form: Form) -> Form | None:
        follow = _CONTAINERS.get(component["type"])
        if follow is not None:
            return follow(self, component, form) if self._is_made(_alone(component), component) else None
        fact = fact_of(component)
        if fact.takes == "uint8" and form.dtype != torch.uint8:
            self.refuse(
                component, f"it takes uint8 pixels, and {form} reach it; put it before what makes floats"
            )
            return None
        if not self._is_made(component, component):
            return None
        if fact.spread is not None:
            return self._spread(component, form)
        return self._kept(component, form) if fact.keeps_size else self._sized(component, form)

    def _kept(self, component: Component, form: Form) -> Form | None:
        if not self._is_small(component, form.high, "reach it"):
            return None
        sizes = {(min(height, _CORNER), min(width, _CORNER)) for height, width in form.corners()}
        outs = [self._run(component, torch.zeros(*form.leading, *size, dtype=form.dtype)) for size in sizes]
        found = [out for out in outs if out is not None]
        if len(found) < len(outs):
            return None
        if not fact_of(component).recolours and found[0].shape[:-2] != form.leading:
            self.refuse(
                component, f"it has values for {found[0].shape[0]} channels; images have {form.leading[0]}"
            )
            return None
        return Form(tuple(found[0].shape[:-2]), found[0].dtype, form.low, form.high)

    def _sized(self, component: Component, form: Form) -> Form | None:
        forms = []
        for size in form.corners():
            out = self._run(component, torch.empty(*form.leading, *size, dtype=form.dtype, device="meta"))
            if out is None:
                return None
            forms.append(form_of(out.shape, out.dtype))
        hull = covering(forms)
        return hull if hull is not None and self._is_small(component, hull.high, "come out of it") else None

    def _spread(self, component: Component, form: Form) -> Form | None:
        spread = fact_of(component).spread
        assert spread is not None
        # The run says what torchvision has against the values; the sizes are those of all draws.
        if (
            self._run(component, torch.empty(*form.leading, *form.high, dtype=form.dtype, device="meta"))
            is None
        ):
            return None
        sizes = [size for corner in form.corners() for size in spread(component, corner)]
        low, high = _bounds(sizes)
        if min(low) < 1:
            self.refuse(component, f"it may leave nothing of images of {form}")
            return None
        if not self._is_small(component, high, "come out of it"):
            return None
        return Form(form.leading, form.dtype, low, high)

    def _compose(self, component: Component, form: Form) -> Form | None:
        return self._chain(held(component), form)

    def _apply(self, component: Component, form: Form) -> Form | None:
        applied = self._chain(held(component), form)
        return None if applied is None else self._either(component, [form, applied])

    def _choice(self, component: Component, form: Form) -> Form | None:
        forms = [self._one(child, form) for child in held(component)]
        found = [after for after in forms if after is not None]
        return self._either(component, found) if len(found) == len(forms) else None

    def _order(self, component: Component, form: Form) -> Form | None:
        for child in held(component):
            after = self._one(child, form)
            if after is None:
                return None
            if after != form:
                came = f"{child['type']} makes {after} of {form}"
                self.refuse(
                    component, f"in any order all must keep size, channels and kind of numbers; {came}"
                )
                return None
        return form

    def _either(self, component: Component, forms: list[Form]) -> Form | None:
        hull = covering(forms)
        if hull is None:
            ends = " or ".join(sorted({str(form) for form in forms}))
            self.refuse(
                component,
                f"whatever is drawn, channels and kind of numbers must be the same; it makes {ends}",
            )
        return hull

    def _is_made(self, component: Component, asked: Component) -> bool:
        """Constructs it, and what it is sure to do."""
        if id(asked) in self._made:
            return True
        for word, most in MOST.items():
            kind, _, name = word.partition(".")
            if kind == component["type"] and _greatest(component[name]) > most:
                pointer = join(self.pointers.get(id(asked), self.pointer), name)
                message = f"{word} is at most {most} here; {component[name]} came. Make it smaller."
                fault(self.errors, pointer, "invalid_value", message)
                return False
        try:
            made = registry.construct("transform", component)
            if held(component):
                made(torch.zeros(1, 1, 1, dtype=torch.uint8))
            elif is_random(component) and isinstance(component.get("p"), float):
                made = registry.construct("transform", component | {"p": 1.0})
        except REFUSALS as error:
            self.refuse(asked, f"torchvision refuses it: {first_line(error)}")
            return False
        self._made[id(asked)] = made
        return True

    def _run(self, component: Component, x_CHW: Tensor) -> Tensor | None:
        transform = self._made[id(component)]
        try:
            for seed in range(fact_of(component).tries):
                torch.default_generator.manual_seed(seed)
                out: Tensor = transform(x_CHW)
        except REFUSALS as error:
            came = f"{list(x_CHW.shape)} {str(x_CHW.dtype).removeprefix('torch.')}"
            self.refuse(component, f"torchvision refuses it for images of {came}: {first_line(error)}")
            return None
        if 0 in out.shape:
            self.refuse(component, f"it leaves nothing of images of {list(x_CHW.shape)}")
            return None
        return out

    def _is_small(self, component: Component, size: Size, where: str) -> bool:
        height, width = size
        if height * width <= MAX_PIXELS:
            return True
        hint = "Resize them before" if where == "reach it" else "make its sizes smaller"
        self.refuse(
            component, f"images of {height} x {width} {where}, and at most {MAX_PIXELS} pixels may; {hint}"
        )
        return False


_CONTAINERS: dict[str, Callable[[Tracer, Component, Form], Form | None]] = {
    COMPOSE: Tracer._compose,
    RANDOM_APPLY: Tracer._apply,
    RANDOM_CHOICE: Tracer._choice,
    RANDOM_ORDER: Tracer._order,
}


def _alone(container: Component) -> Component:
    """The container with members that do nothing: what it draws is tried without what it holds."""
    return container | {"transforms": [{"type": "Identity"}] * len(held(container))}


def covering(forms: Collection[Form]) -> Form | None:
    """The least form that covers all; None where channels or kinds of numbers differ."""
    if len({(form.leading, form.dtype) for form in forms}) > 1:
        return None
    low, high = _bounds([size for form in forms for size in (form.low, form.high)])
    first = next(iter(forms))
    return Form(first.leading, first.dtype, low, high)


def _bounds(sizes: list[Size]) -> tuple[Size, Size]:
    heights, widths = zip(*sizes, strict=True)
    return (min(heights), min(widths)), (max(heights), max(widths))


def _greatest(value: Any) -> float:
    """Of the numbers in an argument, without their sign."""
    if isinstance(value, list):
        return max(map(_greatest, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0
