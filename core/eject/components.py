"""Components of a resolved spec as the calls that a person would write: `nn.Conv2d(3, 32, 3, padding=1)`."""

import inspect
from functools import partial
from typing import Any

from msgspec import Struct, field

from core.eject.code import Bracketed, Node, call, literal
from core.eject.sources import OURS, Cutting
from core.nets import registry
from core.nets.components import FAMILIES
from core.nets.components.architectures import NAMES
from core.nets.components.layers import SEQUENTIAL
from core.nets.lower import lift, plain
from core.nets.signatures import Entry, Parameter

Component = dict[str, Any]

#: What torch's names stand behind in a script.
PREFIXES = {
    "layer": "nn.",
    "architecture": "models.",
    "loss": "nn.",
    "initializer": "nn.init.",
    "optimizer": "optim.",
    "scheduler": "lr_scheduler.",
    "transform": "v2.",
}


class Written(Struct):
    """Calls as they are written, and the functions and classes of ours that they name."""

    ours: Cutting = field(default_factory=Cutting)

    def model(self, component: Component) -> Node:
        """The net; a Sequential has a layer a line."""
        kind = component["type"]
        if kind == SEQUENTIAL:
            layers = [("", self.model(layer)) for layer in component["layers"]]
            return Bracketed(layers, "nn.Sequential", is_open=len(layers) > 1)
        family = "architecture" if kind in NAMES else "layer"
        return self.component(family, component)

    def component(self, family: str, component: Component, *first: Node, **more: Node) -> Bracketed:
        """`first` go before its own arguments, `more` behind them."""
        entry = _entry(family, component["type"])
        arguments, keywords = list(first), dict[str, Node]()
        signature, given = _signature(family, entry), inspect.signature(entry.make).parameters
        is_positional = True
        for parameter in _in_order(entry, signature):
            name = parameter.name
            if not parameter.is_passed or name not in component:
                is_positional = False
                continue
            own = signature.get(name)
            default = inspect.Parameter.empty if own is None else own.default
            if default is not inspect.Parameter.empty and plain(default) == component[name]:
                is_positional = False
                continue
            node = self._value(parameter, component[name])
            takes_place = name in given and given[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            if is_positional and takes_place and default is inspect.Parameter.empty:
                arguments.append(node)
            else:
                is_positional = False
                keywords[name] = node
        if isinstance(entry.make, partial):  # of two architectures, whose builders take these beside
            keywords |= {"aux_logits": "False", "init_weights": "True", "transform_input": "False"}
        return call(self._name(family, entry), *arguments, **keywords, **more)

    def _value(self, parameter: Parameter, value: Any) -> Node:
        if parameter.holds is None or value is None:
            return literal(lift(parameter.annotation, value))
        family = parameter.holds.family
        write = self.model if family in ("model", "layer") else lambda c: self.component(family, c)
        if not parameter.holds.is_list:
            return write(value)
        return Bracketed([("", write(child)) for child in value], bracket="[")

    def _name(self, family: str, entry: Entry) -> str:
        if is_ours(entry):
            return self.ours.name(entry.make)
        return f"{PREFIXES[family]}{entry.name}"


def is_ours(entry: Entry) -> bool:
    return entry.make.__module__.startswith(OURS)


def _entry(family: str, name: str) -> Entry:
    entry = registry.get(family, name)
    if entry is None:
        raise KeyError(f"no {family} {name!r} in torch as installed")
    return entry


def _signature(family: str, entry: Entry) -> dict[str, inspect.Parameter]:
    """With the keywords that hide in `**keywords`, as the family reads them."""
    own = dict(inspect.signature(entry.make).parameters)
    hidden = FAMILIES[family].signatures.get(entry.name)
    if hidden is not None:
        own = {**inspect.signature(hidden).parameters, **own}
    bare = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: parameter for name, parameter in own.items() if parameter.kind not in bare}


def _in_order(entry: Entry, signature: dict[str, inspect.Parameter]) -> list[Parameter]:
    """As torch's signature has them; what is only ours goes last."""
    known = [entry.parameters[name] for name in signature if name in entry.parameters]
    return known + [parameter for name, parameter in entry.parameters.items() if name not in signature]
