"""A net as named nodes: several inputs, several ways through, one module at several places."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from torch import Tensor, nn

# B rows in the batch

#: `node`, or `node[1]` for one output of a node that gives several.
REFERENCE = re.compile(r"(?P<name>[A-Za-z_]\w{0,62})(\[(?P<place>\d{1,3})\])?")


class Node(Struct, frozen=True):
    """`key` names the module: the node's own name, or what it shares with others."""

    name: str
    key: str
    inputs: list[str]


class Graph(nn.Module):
    """Calls its nodes in order; each takes inputs of the net or outputs of earlier nodes.

    The modules stand under their node's name (or its `share`), so the keys of the `state_dict` are those of a
    script that writes `self.<name> = …`. Gives one tensor, or one for each name in `outputs`.
    """

    def __init__(
        self,
        input_names: Sequence[str],
        nodes: Sequence[Node],
        modules: dict[str, nn.Module],
        outputs: list[str],
    ) -> None:
        super().__init__()
        self.input_names = list(input_names)
        self.nodes = list(nodes)
        self.outputs = outputs
        for key, module in modules.items():
            self.add_module(key, module)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values: dict[str, Any] = dict(zip(self.input_names, inputs, strict=True))
        for node in self.nodes:
            module = self._modules[node.key]
            assert module is not None
            values[node.name] = module(*[look_up(values, reference) for reference in node.inputs])
        found = [look_up(values, reference) for reference in self.outputs]
        return found[0] if len(found) == 1 else tuple(found)


def look_up(values: dict[str, Any], reference: str) -> Any:
    """The value of `node` or `node[1]`; KeyError and IndexError where there is none."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise KeyError(reference)
    value = values[match["name"]]
    return value if match["place"] is None else value[int(match["place"])]


def build_graph(component: dict[str, Any], build: Callable[[dict[str, Any]], nn.Module]) -> Graph:
    """From a resolved Graph component. Modules are made in the order of the nodes, shared ones once."""
    nodes = [Node(raw["name"], key_of(raw), raw["inputs"]) for raw in component["nodes"]]
    modules: dict[str, nn.Module] = {}
    for node, raw in zip(nodes, component["nodes"], strict=True):
        if node.key not in modules:
            modules[node.key] = build(raw)
    output = component["output"]
    return Graph(component["input_names"], nodes, modules, [output] if isinstance(output, str) else output)


def key_of(raw: dict[str, Any]) -> str:
    name: str = raw.get("share") or raw["name"]
    return name
