"""One layer of a walk: its sizes filled in, built on meta, its input and output looked at."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.data.inputs import NetInput
from core.faults import fault, first_line, join
from core.nets import registry
from core.nets.build import build_net
from core.nets.components import architectures
from core.nets.components.facts import ARITY, BROADCASTS, ELEMENTWISE, INPUT_DIMS, TAKES_INDICES
from core.nets.refusals import REFUSALS
from core.nets.signatures import Entry
from core.nets.work import work_of
from modelyard.specs import Layer, ProblemError

# B rows in the batch

MAX_DIMS = 16
#: A bound on what one layer may put out for one batch, far above what any device holds.
MAX_OUTPUT_BYTES = 64 * 1024**3

Component = dict[str, Any]
T = TypeVar("T")


class Stop(Exception):
    """The walk ended at a layer that doesn't fit; its error is noted."""


class Leaves:
    """All layers passed so far. A path passed again (a shared node of a Graph) is the same module."""

    def __init__(
        self,
        inputs: list[tuple[NetInput, Tensor]],
        max_parameters: int,
        num_outputs: int | None,
        is_frozen: Callable[[str], bool],
        errors: list[ProblemError],
    ) -> None:
        self.max_parameters = max_parameters
        self.num_outputs = num_outputs
        self.is_frozen = is_frozen
        self.errors = errors
        self.layers: list[Layer] = []
        self.parameters = 0
        self.trainable = 0
        self.work = 0
        self.has_batch_norm = False
        self.last_pointer = "/model"
        self._built: dict[str, nn.Module] = {}
        # Held, so that no address is given out again.
        self._token_inputs = [(x, net_input.num_tokens) for net_input, x in inputs]

    @property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Each with its path."""
        return list(self._built.items())

    def pass_leaf(
        self, component: Component, xs: tuple[Tensor, ...], path: str, pointer: str
    ) -> tuple[Component, Tensor | tuple[Tensor, ...]]:
        self.last_pointer = pointer
        entry = registry.get("model", component["type"])
        assert entry is not None, "the component was checked"
        self._check_inputs(component, xs, pointer)
        component = self._fill(entry, component, xs, pointer)
        module = self._built.get(path)
        is_new = module is None
        if module is None:
            module = self._build(component, path, pointer)
        inner = _Inner(module, path, self) if is_new and is_architecture(component) else None
        came = f"{words(component)} doesn't take {_shapes(xs)}{self._origin()}"
        out = self.attempt(lambda: module(*xs), came, pointer, _hint(component, xs))
        if inner is not None:
            inner.close()
        if not is_architecture(component):  # its layers counted themselves
            self.work += work_of(module, xs[0], out if isinstance(out, Tensor) else out[0])
        for part in out if isinstance(out, tuple) else (out,):
            self.check_output(component, xs[0], part, pointer)
        if is_new and inner is None:
            self.list_layer(module, path, component["type"], out if isinstance(out, Tensor) else out[0])
        return component, out

    def list_layer(self, module: nn.Module, path: str, kind: str, out: Tensor) -> None:
        parameters = sum(p.numel() for p in module.parameters())
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self.layers.append(Layer(path, kind, list(out.shape), parameters, trainable == parameters))

    def attempt(self, call: Callable[[], T], what: str, pointer: str, hint: str = "") -> T:
        """Notes what torch refuses as an error of the shape, and stops."""
        try:
            return call()
        except REFUSALS as error:
            self.stop(pointer, "shape", f"{what}: {first_line(error)}.{hint}")

    def check_output(self, component: Component, x: Tensor, out: Tensor, pointer: str) -> None:
        shape = list(out.shape)
        made = f"{words(component)} makes {shape} of {list(x.shape)}"
        if 0 in shape:
            self.stop(
                pointer, "shape", f"{made}: nothing is left; make its input larger or its window smaller."
            )
        if out.dim() == 0 or shape[0] != x.shape[0]:
            self.stop(pointer, "shape", f"{made}: the rows of the batch must stay the first dimension.")
        size_bytes = out.numel() * out.element_size()
        if out.dim() > MAX_DIMS or size_bytes > MAX_OUTPUT_BYTES:
            message = f"{made}: {size_bytes} bytes, and at most {MAX_OUTPUT_BYTES} may come of one layer."
            self.stop(pointer, "too_large", message)

    def check_dim(self, component: Component, x: Tensor, pointer: str) -> None:
        """No layer may act along the batch: a row's answer would depend on who else is in it."""
        dim = component.get("dim")
        if isinstance(dim, int) and (dim == 0 or dim == -x.dim()):
            message = (
                f"{component['type']} acts along dim={dim}, which is the batch; 1 is the first of a row."
            )
            self.stop(join(pointer, "dim"), "shape", message)
        if isinstance(dim, int) and not -x.dim() <= dim < x.dim():
            # meta lets some pass that the CPU refuses
            message = (
                f"{component['type']} acts along dim={dim}, and {list(x.shape)} has {x.dim()} dimensions."
            )
            self.stop(join(pointer, "dim"), "shape", message)

    def stop(self, pointer: str, code: str, message: str) -> NoReturn:
        fault(self.errors, pointer, code, message)
        raise Stop

    def _check_inputs(self, component: Component, xs: tuple[Tensor, ...], pointer: str) -> None:
        kind = component["type"]
        least, most = ARITY.get(kind, (1, 1))
        if not least <= len(xs) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            noun = "input" if most == 1 else "inputs"
            message = f"{kind} takes {wanted} {noun}; {len(xs)} came. A Graph gives a node several."
            self.stop(pointer, "inputs", message)
        self.check_dim(component, xs[0], pointer)
        dims = (4,) if is_architecture(component) else INPUT_DIMS.get(kind)
        for x in xs:
            if dims is not None and x.dim() not in dims:
                is_sequence = dims == (3,) and not kind.endswith(("1d", "Fold"))
                wanted = "[batch, steps, features]" if is_sequence else " or ".join(_AXES[n] for n in dims)
                message = f"{kind} expects {wanted}; {list(x.shape)} came{self._origin()}."
                self.stop(pointer, "shape", message)
            if x.dim() < 2 and kind not in ELEMENTWISE:
                message = f"{kind} expects [batch, features] at least; {list(x.shape)} came{self._origin()}."
                self.stop(pointer, "shape", message)
            if kind in TAKES_INDICES and x.dtype != torch.int64:
                message = f"{kind} looks up indices (text as tokens); numbers came{self._origin()}."
                self.stop(pointer, "wrong_kind", message)
            if kind not in TAKES_INDICES and x.dtype == torch.int64:
                message = f"{kind} takes numbers; tokens came{self._origin()}. Put an Embedding before it."
                self.stop(pointer, "wrong_kind", message)
        if kind in BROADCASTS and len({x.dim() for x in xs}) > 1:
            message = f"{kind} takes inputs of equally many dimensions; {_shapes(xs)} came."
            self.stop(pointer, "shape", message)

    def _fill(self, entry: Entry, component: Component, xs: tuple[Tensor, ...], pointer: str) -> Component:
        sizes: Component = {}
        for name, parameter in entry.parameters.items():
            held = component.get(name)
            if parameter.holds is not None and isinstance(held, dict):
                inner = registry.get("model", held["type"])
                assert inner is not None, "the component was checked"
                sizes[name] = self._fill(inner, held, xs, join(pointer, name))
            if parameter.size is None:
                continue
            size = xs[parameter.size.of].shape[parameter.size.dim]
            wanted: Any = [size] if parameter.size.is_list else size
            given = component.get(name, wanted)
            # A norm may span several of the last dimensions: torch says whether they fit.
            if given not in (wanted, size) and not (parameter.size.is_list and isinstance(given, list)):
                message = (
                    f"{component['type']} expects {name}={given}; {list(xs[0].shape)} came{self._origin()}. "
                    f"Set {name} to {size}, or leave it out."
                )
                self.stop(pointer, "shape", message)
            if isinstance(given, list) and len(given) >= xs[0].dim():
                message = (
                    f"{component['type']} acts over {name}={given} of {list(xs[0].shape)}, the batch among "
                    "them; take the first out."
                )
                self.stop(join(pointer, name), "shape", message)
            sizes[name] = given
        sizes |= self._fill_from_data(component, xs, pointer)
        merged = component | sizes
        own = {name: merged[name] for name in entry.parameters if name in merged}
        return {"type": component["type"]} | own | {word: merged[word] for word in merged if word not in own}

    def _fill_from_data(self, component: Component, xs: tuple[Tensor, ...], pointer: str) -> Component:
        """What neither torch nor the shape says: rows of an embedding, classes and image size of an
        architecture."""
        kind = component["type"]
        if kind in TAKES_INDICES:
            return self._fill_embedding(component, xs[0], pointer)
        if not is_architecture(component):
            return {}
        filled: Component = {}
        if component.get("num_classes") is None:
            if self.num_outputs is None:
                self.stop(pointer, "missing", f'{kind} needs "num_classes" here; add it.')
            filled["num_classes"] = self.num_outputs
        height, width = xs[0].shape[-2:]
        if kind.startswith("vit_") and component.get("image_size") is None and height == width:
            filled["image_size"] = height
        return filled

    def _fill_embedding(self, component: Component, x: Tensor, pointer: str) -> Component:
        tokens = next((count for known, count in self._token_inputs if known is x), None)
        given = component.get("num_embeddings")
        if given is None:
            if tokens is None:
                self.stop(pointer, "missing", f'{component["type"]} needs "num_embeddings"; add it.')
            return {"num_embeddings": tokens}
        if tokens is not None and given < tokens:
            message = (
                f"{component['type']} has num_embeddings={given}, and the tokens of its input go up to "
                f"{tokens - 1}: set it to {tokens}, or leave it out."
            )
            self.stop(join(pointer, "num_embeddings"), "shape", message)
        return {}

    def _build(self, component: Component, path: str, pointer: str) -> nn.Module:
        try:
            # The forward needs no such context: what it makes is on its input's device, and it costs time.
            with torch.device("meta"):
                module = build_net(component)
        except REFUSALS as error:
            message = f"torch refuses {words(component)}: {first_line(error)}."
            self.stop(pointer, "invalid_value", message)
        prefix = f"{path}." if path else ""
        for name, parameter in module.named_parameters():
            if self.is_frozen(prefix + name):
                parameter.requires_grad_(False)
        self.has_batch_norm |= any(isinstance(inner, _BatchNorm) for inner in module.modules())
        self.parameters += sum(p.numel() for p in module.parameters())
        self.trainable += sum(p.numel() for p in module.parameters() if p.requires_grad)
        if self.parameters > self.max_parameters:
            limit = self.max_parameters
            message = f"A net has at most {limit} parameters; with this layer it has {self.parameters}."
            self.stop(pointer, "too_large", message)
        self._built[path] = module
        return module

    def _origin(self) -> str:
        if not self.layers:
            return " from the dataset"
        last = self.layers[-1]
        return f" from layer {last.path} ({last.type})"


class _Inner:
    """Lists the layers inside an architecture as its forward calls them."""

    def __init__(self, module: nn.Module, path: str, leaves: Leaves) -> None:
        prefix = f"{path}." if path else ""
        self._handles = [
            inner.register_forward_hook(_lister(leaves, prefix + name))
            for name, inner in module.named_modules()
            if name and not any(inner.children())
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _lister(leaves: Leaves, path: str) -> Callable[[nn.Module, Any, Any], None]:
    def listed(module: nn.Module, xs: Any, out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        leaves.list_layer(module, path, type(module).__name__, out)
        leaves.work += work_of(module, xs[0] if xs else out, out)

    return listed


_AXES = {
    2: "[batch, features]",
    3: "[batch, channels, length]",
    4: "[batch, channels, height, width]",
    5: "[batch, channels, depth, height, width]",
}


def is_architecture(component: Component) -> bool:
    return component["type"] in architectures.NAMES


def words(component: Component) -> str:
    """`Linear(in_features=10, …)` with the keywords that hold a number."""
    numbers = {
        k: v
        for k, v in component.items()
        if isinstance(v, int | float)
        or (isinstance(v, list) and not any(isinstance(i, dict | str) for i in v))
    }
    shown = ", ".join(f"{k}={v}" for k, v in numbers.items() if not isinstance(v, bool))
    return f"{component['type']}({shown[:120]})"


def _shapes(xs: tuple[Tensor, ...]) -> str:
    return " and ".join(str(list(x.shape)) for x in xs)


def _hint(component: Component, xs: tuple[Tensor, ...]) -> str:
    if is_architecture(component) and xs[0].dim() == 4 and xs[0].shape[1] != 3:
        return ' It takes three channels: put {"type": "RGB"} among the transforms.'
    if is_architecture(component):
        return " Resize the images to what it was made for, 224 by 224 for most."
    return ""
