"""The walk: a net built layer by layer on the meta device, one batch shape pushed through as it goes.

On meta a tensor has a shape and no bytes, so the net is never allocated. On the way the sizes that the spec
leaves out are filled in, and the first layer that doesn't fit is named with what came and what it expects.
`_Walker` goes through containers; `leaf.py` knows what one layer takes.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field
from torch import Tensor, nn

from core.data.inputs import NetInput
from core.faults import fault, join
from core.nets.components.facts import SIZES
from core.nets.components.layers import GRAPH, PARALLEL, RESIDUAL, SEQUENTIAL
from core.nets.graph_names import check_graphs, check_share, input_names_of, outputs_of, unused_names
from core.nets.leaf import Component, Leaves, Stop
from core.nets.modules.containers import combined
from core.nets.modules.graph import REFERENCE, key_of, look_up
from core.nets.readout import Outputs
from modelyard.specs import Layer, ProblemError

# B rows in the batch

#: Of the size of a Linear: larger ones count as several.
MAX_LAYERS = 1000
#: A node with many inputs counts as one layer more for each so many.
_INPUTS_PER_LAYER = 20
#: And a Bilinear for each so many outputs.
_OUTPUTS_PER_LAYER = 3


class Walked(Struct, frozen=True):
    """`model` has every size filled in; `output` is what the net gives on meta. `modules` are its layers by
    their path; `work` the multiply-adds of the batch. `end` points at the layer that gives the output."""

    model: Component
    layers: list[Layer]
    output: Outputs
    parameters: int
    trainable: int
    modules: list[tuple[str, nn.Module]]
    work: int
    end: str
    has_batch_norm: bool
    warnings: list[str] = field(default_factory=list)


def walk(
    model: Component,
    inputs: list[tuple[NetInput, Tensor]],
    *,
    max_parameters: int,
    num_outputs: int | None,
    is_frozen: Callable[[str], bool],
    errors: list[ProblemError],
) -> Walked | None:
    """Push meta batches [B, …] through a checked model, in train mode. `num_outputs` is what the objective
    asks of an architecture that doesn't say. None where names in a Graph are wrong, or at the first layer
    that doesn't fit, and then `errors` says so."""
    count = _count(model)
    if count > MAX_LAYERS:
        large = f"an architecture counts as {SIZES['resnet18']}"
        message = f"A net has at most {MAX_LAYERS} layers ({large}); {count} came. Take some out."
        fault(errors, "/model", "too_large", message)
        return None
    names = [net_input.name for net_input, _ in inputs]
    if not check_graphs(model, names, errors):
        return None
    leaves = Leaves(inputs, max_parameters, num_outputs, is_frozen, errors)
    walker = _Walker(leaves, names)
    try:
        filled, output = walker.pass_through(model, tuple(x for _, x in inputs), path="", pointer="/model")
    except Stop:
        return None
    return Walked(
        model=filled,
        layers=leaves.layers,
        output=output,
        parameters=leaves.parameters,
        trainable=leaves.trainable,
        modules=leaves.modules,
        work=leaves.work,
        end=leaves.last_pointer,
        has_batch_norm=leaves.has_batch_norm,
        warnings=walker.warnings,
    )


class _Walker:
    def __init__(self, leaves: Leaves, input_names: list[str]) -> None:
        self.leaves = leaves
        self.input_names = input_names
        self.warnings: list[str] = []

    def pass_through(
        self, component: Component, xs: tuple[Tensor, ...], path: str, pointer: str
    ) -> tuple[Component, Outputs]:
        match component["type"]:
            case "Sequential" | "Residual" | "Parallel" if len(xs) != 1:
                message = f"{component['type']} takes one input; {len(xs)} came. Use a Graph for several."
                self.leaves.stop(pointer, "inputs", message)
            case str() as kind if kind == SEQUENTIAL:
                layers, out = self._chain(component["layers"], xs[0], path, join(pointer, "layers"))
                return component | {"layers": layers}, out
            case str() as kind if kind == RESIDUAL:
                return self._residual(component, xs[0], path, pointer)
            case str() as kind if kind == PARALLEL:
                return self._parallel(component, xs[0], path, pointer)
            case str() as kind if kind == GRAPH:
                return self._graph(component, xs, path, pointer)
        return self.leaves.pass_leaf(component, xs, path, pointer)

    def _chain(
        self, components: list[Component], x: Tensor, path: str, pointer: str
    ) -> tuple[list[Component], Outputs]:
        layers: list[Component] = []
        out: Outputs = x
        for place, child in enumerate(components):
            here = join(pointer, place)
            if not isinstance(out, Tensor):
                message = f"the layer before gives {len(out)} outputs, and this takes one: use a Graph"
                self.leaves.stop(here, "inputs", message)
            filled, out = self.pass_through(child, (out,), _under(path, place), here)
            layers.append(filled)
        return layers, out

    def _residual(
        self, component: Component, x: Tensor, path: str, pointer: str
    ) -> tuple[Component, Outputs]:
        layers, out = self._chain(component["layers"], x, _under(path, "layers"), join(pointer, "layers"))
        shortcut, way = None, x
        if component["shortcut"] is not None:
            inner = _under(path, "shortcut")
            shortcut, passed = self._chain(component["shortcut"], x, inner, join(pointer, "shortcut"))
            way = self._one(passed, pointer)
        out = self._one(out, pointer)
        if out.shape != way.shape:
            message = (
                f"A Residual adds what comes in to what comes out: {list(out.shape)} comes out and "
                f"{list(way.shape)} {'of its shortcut' if shortcut else 'in'}. Make them equal, or give a "
                f'"shortcut" that does (a Conv2d with kernel_size 1, say).'
            )
            self.leaves.stop(pointer, "shape", message)
        return component | {"layers": layers, "shortcut": shortcut}, out + way

    def _parallel(
        self, component: Component, x: Tensor, path: str, pointer: str
    ) -> tuple[Component, Outputs]:
        branches, outputs = [], []
        for place, child in enumerate(component["branches"]):
            inner, here = _under(_under(path, "branches"), place), join(pointer, "branches", place)
            filled, out = self.pass_through(child, (x,), inner, here)
            branches.append(filled)
            outputs.append(self._one(out, here))
        self.leaves.check_dim(component, outputs[0], pointer)
        if component["combine"] == "sum" and len({out.shape for out in outputs}) > 1:
            shapes = ", ".join(str(list(out.shape)) for out in outputs)
            self.leaves.stop(
                pointer, "shape", f"Branches are summed where their shapes are equal; {shapes} came."
            )
        refused = "Parallel can't combine " + ", ".join(str(list(out.shape)) for out in outputs)
        out = self.leaves.attempt(
            lambda: combined(outputs, component["combine"], component["dim"]), refused, pointer
        )
        self.leaves.check_output(component, x, out, pointer)
        return component | {"branches": branches}, out

    def _graph(
        self, component: Component, xs: tuple[Tensor, ...], path: str, pointer: str
    ) -> tuple[Component, Outputs]:
        # Only the outermost one has the net's inputs.
        names = input_names_of(component, len(xs), () if path else self.input_names)
        values: dict[str, Any] = dict(zip(names, xs, strict=True))
        firsts: dict[str, Component] = {}
        nodes: list[Component] = []
        for place, raw in enumerate(component["nodes"]):
            here = join(pointer, "nodes", place)
            inputs = [
                self._look_up(values, reference, join(here, "inputs", number))
                for number, reference in enumerate(raw["inputs"])
            ]
            key = key_of(raw)
            if key in firsts and not check_share(firsts[key], raw, here, self.leaves.errors):
                raise Stop
            # A shared key is the same path again, at which its modules stand already.
            filled, out = self.pass_through(raw, tuple(inputs), _under(path, key), here)
            firsts.setdefault(key, filled)
            values[raw["name"]] = out
            nodes.append(filled)
        here = join(pointer, "output")
        found = tuple(self._look_up(values, reference, here) for reference in outputs_of(component))
        unused = unused_names(component, names)
        if unused:
            shown = ", ".join(unused[:10])
            self.warnings.append(f"{pointer}: nothing uses {shown}; connect it, or take it out.")
        return (
            component | {"nodes": nodes, "input_names": names},
            found[0] if len(found) == 1 else found,
        )

    def _look_up(self, values: dict[str, Any], reference: str, pointer: str) -> Tensor:
        """Of a reference to something that is there; how many outputs it has is told by the walk alone."""
        match = REFERENCE.fullmatch(reference)
        assert match is not None, "the names were checked"
        name = match["name"]
        try:
            value = look_up(values, reference)
        except IndexError:
            self.leaves.stop(pointer, "unknown_node", f"{name} gives {len(values[name])} outputs, from [0].")
        if not isinstance(value, Tensor):
            message = f"{name} gives {len(value)} outputs; name one, as {name}[0]."
            self.leaves.stop(pointer, "unknown_node", message)
        if match["place"] is not None and isinstance(values[name], Tensor):
            self.leaves.stop(pointer, "unknown_node", f"{name} gives one output; say {name}.")
        return value

    def _one(self, out: Outputs, pointer: str) -> Tensor:
        if isinstance(out, Tensor):
            return out
        self.leaves.stop(
            pointer, "inputs", f"{len(out)} outputs come of this, and one is taken: use a Graph."
        )


def _under(path: str, name: str | int) -> str:
    return f"{path}.{name}" if path else str(name)


def _count(component: Component) -> int:
    """In layers of the size of a Linear."""
    kind = component["type"]
    own = SIZES.get(kind, 1) + len(component.get("inputs", [])) // _INPUTS_PER_LAYER
    held = sum(_count_held(value) for value in component.values() if isinstance(value, list | dict))
    match kind:
        case "TransformerEncoder" | "TransformerDecoder":
            return own + held * int(component["num_layers"])
        case "Transformer":
            encoder, decoder = SIZES["TransformerEncoderLayer"], SIZES["TransformerDecoderLayer"]
            encoders, decoders = int(component["num_encoder_layers"]), int(component["num_decoder_layers"])
            return own + encoder * encoders + decoder * decoders
        case "RNN" | "LSTM" | "GRU":
            return own * int(component["num_layers"]) * (2 if component["bidirectional"] else 1)
        case "Bilinear":
            # torch goes through its outputs one by one
            return own + int(component["out_features"]) // _OUTPUTS_PER_LAYER
    return own + held


def _count_held(value: Any) -> int:
    if isinstance(value, dict):
        return _count(value) if "type" in value else 0
    return sum(_count(child) for child in value if isinstance(child, dict) and "type" in child)
