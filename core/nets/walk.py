"""The walk: a net built layer by layer on the meta device, one batch shape pushed through as it goes.

On meta a tensor has a shape and no bytes, so the net is never allocated. On the way the sizes that the spec
leaves out are filled in, and the first layer that doesn't fit is named with what came and what it expects.
"""

from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn

from core.nets import registry
from core.nets.build import build_net
from core.nets.components.layers import BATCH_NORMS, INPUT_DIMS, SEQUENTIAL
from core.nets.faults import fault, first_line, join
from core.nets.images import REFUSALS
from modelyard.specs import Layer, ProblemError

# B rows in the batch

MAX_LAYERS = 1000
MAX_DIMS = 16
#: A bound on what one layer may put out for one batch, far above what any device holds.
MAX_OUTPUT_BYTES = 64 * 1024**3

Component = dict[str, Any]


class Step(Struct, frozen=True):
    """A layer passed: where it stands, what it is, what it gives."""

    component: Component
    module: nn.Module
    pointer: str
    layer: Layer


class Walked(Struct, frozen=True):
    """`model` has every size filled in; `output` is the meta tensor at the end."""

    model: Component
    steps: list[Step]
    output: Tensor
    parameters: int
    trainable: int

    @property
    def has_batch_norm(self) -> bool:
        return any(step.component["type"] in BATCH_NORMS for step in self.steps)


def walk(model: Component, x: Tensor, max_parameters: int, errors: list[ProblemError]) -> Walked | None:
    """Push the meta batch `x` [B, …] through a checked model, in train mode. None at the first layer that
    doesn't fit, and then `errors` names it."""
    count = _count(model)
    if count > MAX_LAYERS:
        fault(errors, "/model", "too_large", f"A net has at most {MAX_LAYERS} layers; {count} came.")
        return None
    walker = _Walker(max_parameters, errors)
    try:
        filled, output = walker.pass_through(model, x, path="", pointer="/model")
    except _Stop:
        return None
    return Walked(filled, walker.steps, output, walker.parameters, walker.trainable)


class _Stop(Exception):
    """The walk ended at a layer that doesn't fit; its error is noted."""


class _Walker:
    def __init__(self, max_parameters: int, errors: list[ProblemError]) -> None:
        self.max_parameters = max_parameters
        self.errors = errors
        self.steps: list[Step] = []
        self.parameters = 0
        self.trainable = 0

    def pass_through(
        self, component: Component, x: Tensor, path: str, pointer: str
    ) -> tuple[Component, Tensor]:
        if component["type"] != SEQUENTIAL:
            return self._pass_layer(component, x, path, pointer)
        layers = []
        for place, child in enumerate(component["layers"]):
            inner = f"{path}.{place}" if path else str(place)
            filled, x = self.pass_through(child, x, inner, join(pointer, "layers", place))
            layers.append(filled)
        return component | {"layers": layers}, x

    def _pass_layer(
        self, component: Component, x: Tensor, path: str, pointer: str
    ) -> tuple[Component, Tensor]:
        self._check_dims(component, x, pointer)
        component = self._fill_sizes(component, x, pointer)
        try:
            # The forward needs no such context: what it makes is on its input's device, and it costs time.
            with torch.device("meta"):
                module = build_net(component)
        except REFUSALS as error:
            self._stop(pointer, "invalid_value", f"torch refuses {_words(component)}: {first_line(error)}.")
        parameters = sum(p.numel() for p in module.parameters())
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self.parameters += parameters
        self.trainable += trainable
        if self.parameters > self.max_parameters:
            limit = self.max_parameters
            message = f"A net has at most {limit} parameters; with this layer it has {self.parameters}."
            self._stop(pointer, "too_large", message)
        try:
            out: Tensor = module(x)
        except REFUSALS as error:
            came = f"{_words(component)} doesn't take {list(x.shape)}{self._origin()}"
            self._stop(pointer, "shape", f"{came}: {first_line(error)}.")
        self._check_output(component, x, out, pointer)
        layer = Layer(path, component["type"], list(out.shape), parameters, trainable == parameters)
        self.steps.append(Step(component, module, pointer, layer))
        return component, out

    def _check_dims(self, component: Component, x: Tensor, pointer: str) -> None:
        dims = INPUT_DIMS.get(component["type"])
        if dims is not None and x.dim() not in dims:
            wanted = " or ".join(_AXES[n] for n in dims)
            message = f"{component['type']} expects {wanted}; {list(x.shape)} came{self._origin()}."
            self._stop(pointer, "shape", message)

    def _fill_sizes(self, component: Component, x: Tensor, pointer: str) -> Component:
        entry = registry.get("layer", component["type"])
        if entry is None:  # the component was checked
            return component
        sizes: dict[str, int] = {}
        for name, parameter in entry.parameters.items():
            if parameter.dim is None:
                continue
            sizes[name] = x.shape[parameter.dim]
            given = component.get(name, sizes[name])
            if given != sizes[name]:
                message = (
                    f"{component['type']} expects {name}={given}; {list(x.shape)} came{self._origin()}. "
                    f"Set {name} to {sizes[name]}, or leave it out."
                )
                self._stop(pointer, "shape", message)
        merged = component | sizes
        return {"type": component["type"]} | {name: merged[name] for name in entry.parameters}

    def _check_output(self, component: Component, x: Tensor, out: Tensor, pointer: str) -> None:
        shape = list(out.shape)
        words = f"{_words(component)} makes {shape} of {list(x.shape)}"
        if 0 in shape:
            self._stop(
                pointer, "shape", f"{words}: nothing is left; make its input larger or its window smaller."
            )
        if out.dim() == 0 or shape[0] != x.shape[0]:
            self._stop(pointer, "shape", f"{words}: the rows of the batch must stay the first dimension.")
        size_bytes = out.numel() * out.element_size()
        if out.dim() > MAX_DIMS or size_bytes > MAX_OUTPUT_BYTES:
            message = f"{words}: {size_bytes} bytes, and at most {MAX_OUTPUT_BYTES} may come of one layer."
            self._stop(pointer, "too_large", message)

    def _origin(self) -> str:
        if not self.steps:
            return " from the dataset"
        last = self.steps[-1].layer
        return f" from layer {last.path} ({last.type})"

    def _stop(self, pointer: str, code: str, message: str) -> None:
        fault(self.errors, pointer, code, message)
        raise _Stop


_AXES = {2: "[batch, features]", 3: "[batch, channels, length]", 4: "[batch, channels, height, width]"}


def _words(component: Component) -> str:
    """`Linear(in_features=10, …)` with the keywords that hold a number."""
    numbers = {k: v for k, v in component.items() if isinstance(v, int | list) and not isinstance(v, bool)}
    return f"{component['type']}({', '.join(f'{k}={v}' for k, v in numbers.items())[:120]})"


def _count(model: Component) -> int:
    children = model["layers"] if model["type"] == SEQUENTIAL else []
    return 1 + sum(_count(child) for child in children)
