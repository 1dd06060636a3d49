"""The transforms of an image job, resolved, and the one shape in which images reach the net."""

from collections.abc import Sequence

import torch
from msgspec import UNSET, Struct
from torch import Tensor
from torchvision.transforms import v2

from core.data.images import is_channels_last
from core.data.manifest import Kind, Manifest
from core.nets import registry
from core.nets.components.transforms import NEEDS_FLOAT, RANDOM, RESIZES
from core.nets.faults import fault, first_line, join
from core.nets.transforms import Component, prefix_length, resolve, without_random
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Transforms

# C channels, H height, W width

#: The largest image that may reach a transform other than a resize, or the net.
MAX_PIXELS = 2048 * 2048
MAX_TRANSFORMS = 100

#: What keeps height and width is tried on a corner of this side: it costs the same for any image.
_CORNER = 64

#: What torch and torchvision raise for values they refuse.
REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AssertionError,
    ArithmeticError,
)

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
    transforms: Transforms, shapes: list[tuple[Shape, int]], errors: list[ProblemError]
) -> Images | None:
    """None where something is wrong; then `errors` says what. Runs the transforms on zeros: a resize on the
    meta device, the others on a corner of the image."""
    before = len(errors)
    train = _check(transforms.train, "/transforms/train", errors)
    evaluate = train
    pointer = "/transforms/train"
    if transforms.eval is not UNSET:
        pointer = "/transforms/eval"
        evaluate = _check(transforms.eval, pointer, errors)
        for place, component in enumerate(evaluate):
            if component["type"] in RANDOM:
                message = f"{component['type']} is random; a prediction must not be. Leave it out of eval."
                fault(errors, join(pointer, place), "random_eval", message)
    if len(errors) > before:
        return None
    resolved_train, resolved_eval = resolve(train), resolve(without_random(evaluate))
    shape = _Trace(resolved_eval, evaluate, pointer, errors).shape_of(shapes)
    train_shape = (
        _Trace(resolved_train, train, "/transforms/train", errors).shape_of(shapes) if shape else None
    )
    if shape is None or train_shape is None:
        return None
    if shape != train_shape:
        message = f"train makes images of {list(train_shape)} and eval of {list(shape)}; make them equal."
        fault(errors, "/transforms/eval", "shape", message)
        return None
    return Images(resolved_train, resolved_eval, shape)


def _check(components: Sequence[Component], pointer: str, errors: list[ProblemError]) -> list[Component]:
    if len(components) > MAX_TRANSFORMS:
        message = f"At most {MAX_TRANSFORMS} transforms are expected here; {len(components)} came."
        fault(errors, pointer, "too_large", message)
        return []
    checked = [
        registry.check_component("transform", component, join(pointer, place), errors)
        for place, component in enumerate(components)
    ]
    return [component for component in checked if component is not None]


class _Trace:
    """Follows shapes through one resolved list; each (step, shape) is tried once."""

    def __init__(
        self, resolved: list[Component], asked: list[Component], pointer: str, errors: list[ProblemError]
    ) -> None:
        self.resolved = resolved
        self.pointer = pointer
        self.errors = errors
        self.places = {id(component): place for place, component in enumerate(asked)}
        self.known: dict[tuple[int, Shape, torch.dtype], Shape] = {}

    def shape_of(self, starts: list[tuple[Shape, int]]) -> Shape | None:
        steps = self._construct()
        if steps is None:
            return None
        state = torch.default_generator.get_state()
        try:
            shapes = []
            for start, _ in starts:
                shape = self._follow(steps, torch.zeros(1, dtype=torch.uint8).expand(start))
                if shape is None:
                    return None
                shapes.append(shape)
        finally:
            torch.default_generator.set_state(state)
        if len(set(shapes)) > 1:
            self._sizes_differ(starts, "All images must reach the net in one size")
            return None
        if len({self._stored(steps, start) for start, _ in starts}) > 1:
            self._sizes_differ(starts, "All images must have one size before what is random or makes floats")
            return None
        return shapes[0]

    def _stored(self, steps: list[tuple[Component, v2.Transform]], start: Shape) -> torch.Size:
        """What the prefix makes of an image: rows are stored so, in one array."""
        x_CHW = torch.zeros(1, dtype=torch.uint8).expand(start).to("meta")
        for component, transform in steps[: prefix_length(self.resolved)]:
            if component["type"] in RESIZES:
                x_CHW = transform(x_CHW)
        return x_CHW.shape

    def _construct(self) -> list[tuple[Component, v2.Transform]] | None:
        steps = []
        for component in self.resolved:
            try:
                steps.append((component, registry.construct("transform", component)))
            except REFUSALS as error:
                self._refuse(component, f"torchvision refuses it: {first_line(error)}")
                return None
        return steps

    def _follow(self, steps: list[tuple[Component, v2.Transform]], x_CHW: Tensor) -> Shape | None:
        passed = []
        for number, (component, transform) in enumerate(steps):
            key = (number, tuple(x_CHW.shape), x_CHW.dtype)
            if key in self.known:
                break
            passed.append(key)
            if component["type"] in RESIZES:
                out = self._run(component, transform, x_CHW.to("meta"))
                shape = None if out is None else out.shape
            elif self._is_small(component, x_CHW):
                out = self._run(component, transform, x_CHW[..., :_CORNER, :_CORNER])
                shape = None if out is None else torch.Size((*out.shape[:-2], *x_CHW.shape[-2:]))
            else:
                return None
            if out is None or shape is None:
                return None
            # one element, whatever the shape: an image is never allocated here
            out = torch.zeros(1, dtype=out.dtype).expand(shape)
            if component["type"] in NEEDS_FLOAT and out.shape != x_CHW.shape:
                self._refuse(
                    component, f"it has values for {out.shape[0]} channels; images have {x_CHW.shape[0]}"
                )
                return None
            x_CHW = out
        else:
            if x_CHW.dtype != torch.float32:
                came = str(x_CHW.dtype)[6:]
                message = f"The transforms end with {came}; the net needs float32: end with ToDtype."
                fault(self.errors, self.pointer, "invalid_value", message)
                return None
            if not self._is_small(self.resolved[-1], x_CHW):
                return None
            key = (len(steps), tuple(x_CHW.shape), x_CHW.dtype)
            self.known[key] = tuple(x_CHW.shape)
        final = self.known[key]
        self.known.update(dict.fromkeys(passed, final))
        return final

    def _run(self, component: Component, transform: v2.Transform, x_CHW: Tensor) -> Tensor | None:
        try:
            out: Tensor = transform(x_CHW)
        except REFUSALS as error:
            came = f"{list(x_CHW.shape)} {str(x_CHW.dtype)[6:]}"
            self._refuse(component, f"torchvision refuses it for images of {came}: {first_line(error)}")
            return None
        if 0 in out.shape:
            self._refuse(component, f"it leaves nothing of images of {list(x_CHW.shape)}")
            return None
        return out

    def _is_small(self, component: Component, x_CHW: Tensor) -> bool:
        height, width = x_CHW.shape[-2:]
        if height * width <= MAX_PIXELS:
            return True
        message = (
            f"images of {height} x {width} reach it, and at most {MAX_PIXELS} pixels may; Resize them before"
        )
        self._refuse(component, message)
        return False

    def _sizes_differ(self, starts: list[tuple[Shape, int]], must: str) -> None:
        sizes = ", ".join(f"{h} x {w} ({count})" for (_, h, w), count in starts[:5])
        more = ", …" if len(starts) > 5 else ""
        (_, height, width), _ = starts[0]
        message = (
            f"{must}; the dataset has {sizes}{more} (height x width). "
            f'Put {{"type": "Resize", "size": [{height}, {width}]}} first.'
        )
        fault(self.errors, self.pointer, "image_sizes", message)

    def _refuse(self, component: Component, why: str) -> None:
        place = self.places.get(id(component))
        pointer = self.pointer if place is None else join(self.pointer, place)
        fault(self.errors, pointer, "invalid_value", f"{component['type']}: {why}.")
