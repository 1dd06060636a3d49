"""The transforms of an image job, resolved, and the one shape in which images reach the net."""

from collections.abc import Iterator, Sequence

import torch
from msgspec import UNSET, Struct

from core.data.images import is_channels_last
from core.data.manifest import Kind, Manifest
from core.faults import fault, join
from core.nets import registry
from core.nets.decode import present
from core.nets.forms import MAX_PIXELS, Form, Tracer, covering, form_of
from core.nets.mixing import check_mixing
from core.nets.transforms import (
    Component,
    fact_of,
    flatten,
    held,
    is_mixing,
    is_random,
    prefix_length,
    resolve,
    without_random,
)
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Transforms

# C channels, H height, W width

#: In one list, those inside others included.
MAX_TRANSFORMS = 100

Shape = tuple[int, ...]


class Images(Struct, frozen=True):
    """Resolved lists, and [C, H, W] of what both make of every image."""

    train: list[Component]
    eval: list[Component]
    shape: Shape


def image_shapes(manifest: Manifest, name: str) -> list[tuple[Shape, int]]:
    """[C, H, W] and count of the images in a column, the most frequent first; empty where it holds none. A
    uint8 matrix in arrays is an image of one channel, and [H, W, C] is turned to [C, H, W]."""
    feature = manifest.features[name]
    match manifest.kind:
        case Kind.IMAGES if name == "image":
            channels = feature.shape[0]
            return [((channels, h, w), count) for h, w, count in manifest.image_sizes]
        case Kind.ARRAYS if feature.dtype == "uint8" and len(feature.shape) >= 2:
            shape = tuple(feature.shape)
            if is_channels_last(shape):
                shape = (shape[2], *shape[:2])
            return [(shape if len(shape) > 2 else (1, *shape), manifest.num_samples)]
        case _:
            return []


def resolve_images(
    transforms: Transforms,
    shapes: list[tuple[Shape, int]],
    errors: list[ProblemError],
    num_soft_classes: int | None = None,
) -> Images | None:
    """None where something is wrong; then `errors` says what. No image is allocated. `num_soft_classes` are
    those of a target that may be probabilities; without it, no transform may mix rows."""
    before = len(errors)
    train = evaluate = _List(transforms.train, "/transforms/train", errors)
    if transforms.eval is not UNSET:
        evaluate = _List(transforms.eval, "/transforms/eval", errors)
        evaluate.refuse_random()
    check_mixing(flatten(train.checked), train.pointers, num_soft_classes, errors)
    if len(errors) > before:
        return None
    resolved_train, resolved_eval = resolve(train.checked), resolve(without_random(evaluate.checked))
    shape = evaluate.shape_of(resolved_eval, shapes)
    train_shape = train.shape_of(resolved_train, shapes, may_differ=True) if shape is not None else None
    if shape is None or train_shape is None:
        return None
    if shape != train_shape:
        fault(errors, "/transforms/eval", "shape", _unequal(resolved_train, train_shape, shape, transforms))
        return None
    return Images(resolved_train, resolved_eval, shape)


class _List:
    """One of a job's two lists, checked. `pointers` are those of its components, by their id."""

    def __init__(self, components: Sequence[Component], pointer: str, errors: list[ProblemError]) -> None:
        self.pointer = pointer
        self.errors = errors
        self.checked: list[Component] = []
        for place, component in present(components[: MAX_TRANSFORMS + 1]):
            found = registry.check_component("transform", component, join(pointer, place), errors)
            self.checked += [] if found is None else [found]
        self.pointers = dict(_pointers(self.checked, pointer))
        if max(len(components), len(self.pointers)) > MAX_TRANSFORMS:
            came = max(len(components), len(self.pointers))
            message = f"At most {MAX_TRANSFORMS} transforms are expected here; {came} came."
            fault(errors, pointer, "too_large", message)

    def refuse_random(self) -> None:
        for component in flatten(self.checked):
            if is_random(component):
                message = f"{component['type']} is random; a prediction must not be. Leave it out of eval."
                fault(self.errors, self.pointers[id(component)], "random_eval", message)

    def shape_of(
        self, resolved: list[Component], starts: list[tuple[Shape, int]], *, may_differ: bool = False
    ) -> Shape | None:
        """Of what reaches the net; None where something is wrong. Images that leave the prefix in several
        sizes are refused unless they `may_differ`, and then the rest must give them one."""
        tracer = Tracer(self.pointers, self.pointer, self.errors)
        alone = [component for component in resolved if not is_mixing(component)]
        cut = prefix_length(alone)
        stored: set[Form] = set()
        for start, _ in starts:
            form = tracer.trace(alone[:cut], form_of(start))
            if form is None:
                return None
            stored.add(form)
        if len(stored) > 1 and not may_differ:
            self._sizes_differ(starts, may_differ)
            return None
        between = covering(stored)
        assert between is not None, "of one dataset all have the same channels"
        form = tracer.trace(alone[cut:], between)
        if form is not None and len(stored) > 1 and not form.is_one_size:
            self._sizes_differ(starts, may_differ)
            return None
        return None if form is None else self._end(form)

    def _end(self, form: Form) -> Shape | None:
        if form.dtype != torch.float32:
            came = str(form.dtype).removeprefix("torch.")
            message = f"The transforms end with {came}; the net needs float32: end with ToDtype."
        elif not form.is_one_size:
            message = (
                f"All images must reach the net in one size; these end with {form}. "
                f'Put {{"type": "Resize", "size": {list(form.high)}}} after what gives every image its own.'
            )
        elif form.high[0] * form.high[1] > MAX_PIXELS:
            height, width = form.high
            most = f"at most {MAX_PIXELS} pixels may"
            message = f"Images of {height} x {width} reach the net, and {most}; Resize them."
        else:
            return form.shape
        fault(self.errors, self.pointer, "invalid_value", message)
        return None

    def _sizes_differ(self, starts: list[tuple[Shape, int]], may_differ: bool) -> None:
        sizes = ", ".join(f"{h} x {w} ({count})" for (*_, h, w), count in starts[:5])
        more = ", …" if len(starts) > 5 else ""
        *_, height, width = starts[0][0]
        where = "first" if may_differ else "first, or give eval a list of its own that begins so"
        message = (
            f"All images must reach the net in one size; the dataset has {sizes}{more} (height x width). "
            f'Put {{"type": "Resize", "size": [{height}, {width}]}} {where}.'
        )
        fault(self.errors, self.pointer, "image_sizes", message)


def _pointers(components: Sequence[Component], pointer: str) -> Iterator[tuple[int, str]]:
    for place, component in enumerate(components):
        here = join(pointer, place)
        yield id(component), here
        yield from _pointers(held(component), join(here, "transforms"))


def _unequal(train: list[Component], train_shape: Shape, shape: Shape, transforms: Transforms) -> str:
    made = f"train makes images of {list(train_shape)} and eval of {list(shape)}"
    sized = [c["type"] for c in train if is_random(c) and not fact_of(c).keeps_size]
    if transforms.eval is not UNSET or not sized:
        return f"{made}; make them equal."
    sides = list(train_shape[-2:])
    return (
        f"{made}: eval is train without what is random, and {', '.join(sized)} gives the size. "
        f'Add an eval that ends in it, as [{{"type": "Resize", "size": {sides}}}] or CenterCrop.'
    )
