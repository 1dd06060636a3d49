"""What the nodes of a Graph are called and what they refer to: all that needs no tensor to be told wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from core.faults import fault, join, show, suggestion
from core.nets.components.layers import GRAPH
from core.nets.modules.graph import REFERENCE, Graph, key_of
from modelyard.specs import ProblemError

Component = dict[str, Any]

#: What the one input of a Graph is called where nothing else is said.
INPUT = "input"

#: What a node can't be called: a module has it already.
_TAKEN = frozenset(dir(Graph([], [], {}, [])))
#: A node's own words; all others are its layer's keywords.
_OF_NODES = ("name", "inputs", "share")


def check_graphs(model: Component, net_inputs: Sequence[str], errors: list[ProblemError]) -> bool:
    """Whether the names, references and shares in all Graphs of a checked model hold; else `errors` says of
    each why not. `net_inputs` are the names of the net's inputs."""
    before = len(errors)
    for graph, num_inputs, pointer in _graphs(model, len(net_inputs), "/model"):
        names = input_names_of(graph, num_inputs, net_inputs if graph is model else ())
        if len(names) != num_inputs:
            message = f'This Graph has {num_inputs} inputs; "input_names" names {len(names)} of them.'
            fault(errors, pointer, "inputs", message)
        _check_nodes(graph, names, pointer, errors)
    return len(errors) == before


def input_names_of(graph: Component, num_inputs: int, net_inputs: Sequence[str] = ()) -> list[str]:
    """Its own names for its inputs; of the outermost Graph, else those of the net; of one input, else
    `INPUT`."""
    own: list[str] | None = graph.get("input_names")
    names = own or list(net_inputs)
    if num_inputs == 1 and not own:
        references = [reference for node in graph["nodes"] for reference in node["inputs"]]
        if not names or INPUT in references:
            return [INPUT]
    return names


def unused_names(graph: Component, input_names: Sequence[str]) -> list[str]:
    """Inputs and nodes of a Graph that holds, to which nothing refers."""
    references = [reference for node in graph["nodes"] for reference in node["inputs"]]
    used = {_node_of(reference) for reference in (*references, *outputs_of(graph))}
    return [name for name in (*input_names, *(node["name"] for node in graph["nodes"])) if name not in used]


def outputs_of(graph: Component) -> list[str]:
    output: str | list[str] = graph["output"]
    return [output] if isinstance(output, str) else output


def check_share(first: Component, node: Component, pointer: str, errors: list[ProblemError]) -> bool:
    """Whether a node has the keywords of the `first` one of its module."""
    given = {word: value for word, value in node.items() if word not in _OF_NODES}
    if all(first.get(word) == value for word, value in given.items()):
        return True
    message = f"{show(node['name'])} shares a module with {show(first['name'])}: give both the same keywords."
    fault(errors, pointer, "share", message)
    return False


def _graphs(component: Component, num_inputs: int, pointer: str) -> Iterator[tuple[Component, int, str]]:
    """Each Graph with the number of its inputs; only a node of another Graph has several."""
    if component["type"] == GRAPH:
        yield component, num_inputs, pointer
    for word, value in component.items():
        if isinstance(value, dict) and "type" in value:
            yield from _graphs(value, 1, join(pointer, word))
        elif isinstance(value, list):
            for place, child in enumerate(value):
                if isinstance(child, dict) and "type" in child:
                    yield from _graphs(child, len(child.get("inputs", "1")), join(pointer, word, place))


def _check_nodes(
    graph: Component, input_names: Sequence[str], pointer: str, errors: list[ProblemError]
) -> None:
    known = list(input_names)
    later = [node["name"] for node in graph["nodes"]]
    firsts: dict[str, Component] = {}
    for place, node in enumerate(graph["nodes"]):
        here = join(pointer, "nodes", place)
        is_named = _check_name(node, known, here, errors)
        for number, reference in enumerate(node["inputs"]):
            _check_reference(reference, known, later, join(here, "inputs", number), errors)
        first = firsts.setdefault(key_of(node), node)
        if is_named and first is not node and node["share"] is None:
            message = f"{show(node['name'])} is the share key of {show(first['name'])}; rename it."
            fault(errors, join(here, "name"), "name", message)
        elif is_named and first is not node:
            # What the first leaves out is filled in by the walk, which then looks again.
            check_share(node | first, node, here, errors)
        known.append(node["name"])
    for number, reference in enumerate(outputs_of(graph)):
        is_one = isinstance(graph["output"], str)
        here = join(pointer, "output") if is_one else join(pointer, "output", number)
        _check_reference(reference, known, [], here, errors)


def _check_name(node: Component, known: Sequence[str], pointer: str, errors: list[ProblemError]) -> bool:
    name, before = node["name"], len(errors)
    for word in ("name", "share"):
        match = REFERENCE.fullmatch(node[word] or name)
        if match is None or match["place"] is not None:
            message = f"A node's {word} is letters, digits and _, 63 at most; {show(node[word])} came."
            fault(errors, join(pointer, word), "name", message)
            return False
    if name in known:
        message = f"{show(name)} is taken by an input or an earlier node; rename it."
        fault(errors, join(pointer, "name"), "name", message)
    elif key_of(node) in _TAKEN:
        message = f"{show(key_of(node))} is a word of torch's modules; rename it."
        fault(errors, join(pointer, "name"), "name", message)
    return len(errors) == before


def _check_reference(
    reference: str, known: Sequence[str], later: Sequence[str], pointer: str, errors: list[ProblemError]
) -> None:
    name = _node_of(reference)
    if name in known:
        return
    so_far = f"So far there are: {', '.join(dict.fromkeys(known))}."
    if name in later:
        message = (
            f"There is no input or earlier node {show(reference)}: it comes later. {so_far} Put it before."
        )
    else:
        message = (
            f"There is no input or earlier node {show(reference)}.{suggestion(reference, known)} {so_far}"
        )
    fault(errors, pointer, "unknown_node", message)


def _node_of(reference: str) -> str:
    match = REFERENCE.fullmatch(reference)
    return match["name"] if match is not None else ""
