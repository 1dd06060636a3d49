"""How a net's parameters start: `initialize`, the entries of a spec that fill parameters in place.

A plan calls `check_initialize` with `parameters_of` its modules; a worker calls `initialize` once the net is
built, still on the CPU, where torch's generator gives the same numbers for every device.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from msgspec import Struct
from torch import nn

from core.faults import fault, first_line, join, show, suggestion
from core.nets import registry
from core.nets.decode import present
from core.nets.matching import check_matches, full_matches
from core.nets.refusals import REFUSALS
from modelyard.specs import ProblemError

Component = dict[str, Any]

MAX_ENTRIES = 100
_POINTER = "/initialize"
_MAX_MATCH = 200
_FEW = 8


class Parameter(Struct, frozen=True):
    """`layers` are the class of the layer it belongs to and the classes that one inherits from."""

    shape: tuple[int, ...]
    layers: tuple[str, ...]


def parameters_of(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Parameter]:
    """By name, in the order of `net.named_parameters()`, where `modules` are the parts of a net by path, or
    `("", net)`. A tensor used twice has its first name."""
    found: dict[str, Parameter] = {}
    seen: set[int] = set()
    for prefix, module in modules:
        for path, layer in module.named_modules(prefix=prefix):
            for last, tensor in layer.named_parameters(recurse=False):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    name = f"{path}.{last}" if path else last
                    found[name] = Parameter(tuple(tensor.shape), _layers(layer))
    return found


def initialize(net: nn.Module, entries: list[Component]) -> None:
    """Fills the parameters in the net's order, each by the last entry that speaks of it, drawing from
    torch's generator. Of checked entries."""
    chosen = _chosen(entries, parameters_of([("", net)]))
    for name, parameter in net.named_parameters():
        if name in chosen:
            registry.construct("initializer", chosen[name], parameter)


def check_initialize(
    entries: list[Component], parameters: Mapping[str, Parameter], errors: list[ProblemError]
) -> list[Component]:
    """The entries with their defaults. Every one speaks of some parameter, and its function takes the shapes
    of all of them: tried without their memory."""
    if len(entries) > MAX_ENTRIES:
        message = f"initialize has at most {MAX_ENTRIES} entries; {len(entries)} came. Use wider patterns."
        fault(errors, _POINTER, "too_large", message)
        return []
    checked: list[Component] = []
    for place, raw in present(entries):
        pointer = join(_POINTER, place)
        entry = registry.check_component("initializer", raw, pointer, errors)
        if entry is None:
            continue
        checked.append(entry)
        spoken_of = _check_spoken_of(entry, parameters, pointer, errors)
        tried: set[tuple[int, ...]] = set()
        for name in spoken_of:
            shape = parameters[name].shape
            small, small_shape = _small(entry, shape)
            if small_shape in tried:
                continue
            tried.add(small_shape)
            try:
                registry.construct("initializer", small, torch.empty(small_shape, device="meta"))
            except REFUSALS as error:
                message = f"torch refuses {entry['type']} for {name} {list(shape)}: {first_line(error)}."
                hint = "" if entry["parameter"] else ' "parameter": "weight" leaves the biases out.'
                fault(errors, pointer, "shape", message + hint)
                break
    return checked


def _layers(layer: nn.Module) -> tuple[str, ...]:
    return tuple(each.__name__ for each in type(layer).__mro__ if each not in (nn.Module, object))


def _chosen(entries: list[Component], parameters: Mapping[str, Parameter]) -> dict[str, Component]:
    """The entry that fills a parameter, by name."""
    return {name: entry for entry in entries for name in _spoken_of(entry, parameters)}


def _spoken_of(entry: Component, parameters: Mapping[str, Parameter]) -> list[str]:
    """Raises BadPattern."""
    names = _of_layer(entry, parameters)
    return names if entry["match"] is None else full_matches(entry["match"], names)


def _of_layer(entry: Component, parameters: Mapping[str, Parameter]) -> list[str]:
    """As `isinstance` would choose layers, and by the last part of a name."""
    layer, last = entry["layer"], entry["parameter"]
    return [
        name
        for name, parameter in parameters.items()
        if layer is None or layer in parameter.layers
        if last is None or name.rpartition(".")[2] == last
    ]


def _check_spoken_of(
    entry: Component, parameters: Mapping[str, Parameter], pointer: str, errors: list[ProblemError]
) -> list[str]:
    layer, last, match = entry["layer"], entry["parameter"], entry["match"]
    known = sorted({parameter.layers[0] for parameter in parameters.values()})
    if layer is not None and not any(layer in parameter.layers for parameter in parameters.values()):
        message = (
            f"No layer with parameters is a {show(layer)}.{suggestion(layer, known)} "
            f"This net has: {', '.join(known[:40])}."
        )
        fault(errors, join(pointer, "layer"), "matches_nothing", message)
        return []
    names = _of_layer(entry, parameters)
    if not names:
        own = [name for name in parameters if layer is None or layer in parameters[name].layers]
        words = sorted({name.rpartition(".")[2] for name in own})
        message = (
            f"No parameter of {layer or 'this net'} is called {show(last)}.{suggestion(last or '', words)} "
            f"Its names end with: {', '.join(words[:40])}."
        )
        fault(errors, join(pointer, "parameter"), "matches_nothing", message)
        return []
    if match is None:
        return names
    if not 1 <= len(match) <= _MAX_MATCH:
        message = f"match has 1 to {_MAX_MATCH} characters; {len(match)} came."
        fault(errors, join(pointer, "match"), "invalid_value", message)
        return []
    return check_matches(match, names, join(pointer, "match"), errors)


def _small(entry: Component, shape: tuple[int, ...]) -> tuple[Component, tuple[int, ...]]:
    """A component and a shape that the function refuses where it refuses these. Most look at the number of
    dimensions alone, and some go through a tensor row by row."""
    if entry["type"] != "dirac_" or not shape:
        return entry, tuple(min(side, _FEW) for side in shape)
    # It divides the first side by groups; both by what they share leave it as divisible as before.
    shared = math.gcd(shape[0], entry["groups"])
    small = (shape[0] // shared, *(1 for _ in shape[1:]))
    return entry | {"groups": entry["groups"] // shared}, small
