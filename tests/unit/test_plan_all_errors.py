"""One wrong part of a spec doesn't hide another: what can be told without it is told along with it."""

from typing import Any

import pytest

from core.data.manifest import Manifest
from core.errors import Invalid
from core.nets.plan import Source, check
from modelyard.specs import ProblemError
from tests.manifests import images, table

MISSPELT: dict[str, Any] = {
    "transforms": {"train": [{"type": "RandomHorizontalflip"}], "eval": [{"type": "Resise"}]},
    "metrics": ["acuracy", {"type": "f11"}],
    "initialize": [{"type": "kaiming_normal"}],
    "freeze": ["("],
    "unfreeze": [{"match": "[", "epoch": 1}],
    "optimizer": {"type": "SGD", "param_groups": [{"match": ")"}]},
}
TOLD = {
    "/transforms/train/0/type",
    "/transforms/eval/0/type",
    "/metrics/0",
    "/metrics/1/type",
    "/initialize/0/type",
    "/freeze/0",
    "/unfreeze/0/match",
    "/optimizer/param_groups/0/match",
}


def refused(fields: dict[str, Any], manifest: Manifest | None = None) -> list[ProblemError]:
    spec = {"name": "m", "dataset": "d", "model": net()} | fields
    with pytest.raises(Invalid) as caught:
        check(spec, Source("d@1", manifest or images()))
    return caught.value.errors


def pointers(fields: dict[str, Any], manifest: Manifest | None = None) -> list[str]:
    return [error.pointer for error in refused(fields, manifest)]


def messages(fields: dict[str, Any]) -> list[str]:
    return [error.message for error in refused(fields)]


def net(**last: Any) -> dict[str, Any]:
    layers = [{"type": "Flatten"}, {"type": "Linear", "out_features": 10} | last]
    return {"type": "Sequential", "layers": layers}


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"target": "lable"}, "/target"),
        ({"target_transform": [{"type": "Standardise"}]}, "/target_transform/0/type"),
        ({"model": net(type="Liner")}, "/model/layers/1/type"),
        ({"loss": {"type": "CrossEntropy"}}, "/loss/type"),
        ({"scheduler": {"type": "StepLr"}}, "/scheduler/type"),
    ],
)
def test_a_wrong_part_does_not_hide_misspelt_words_elsewhere(wrong: dict[str, Any], pointer: str) -> None:
    told = pointers(MISSPELT | wrong)
    assert set(told) == TOLD | {pointer}
    assert len(told) == len(set(told))


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"optimizer": {"type": "adam"}}, "/optimizer/type"),
        ({"scheduler": {"type": "StepLr"}}, "/scheduler/type"),
        ({"trainer": {"sampler": {"type": "weighted"}}}, "/trainer/sampler/type"),
    ],
)
def test_a_wrong_part_that_the_net_does_not_need_does_not_hide_its_shapes(
    wrong: dict[str, Any], pointer: str
) -> None:
    told = pointers({"model": net(in_features=10), "freeze": ["("]} | wrong)
    assert sorted(told) == sorted([pointer, "/model/layers/1", "/freeze/0"])


def test_patterns_of_groups_are_held_against_the_parameters_though_a_scheduler_is_misspelt() -> None:
    optimizer = {"type": "SGD", "param_groups": [{"match": "9\\..*"}]}
    told = pointers(
        {"optimizer": optimizer, "scheduler": {"type": "StepLr"}, "initialize": [{"type": "ones"}]}
    )
    assert sorted(told) == ["/initialize/0/type", "/optimizer/param_groups/0/match", "/scheduler/type"]


def test_a_wrong_target_does_not_hide_wrong_inputs() -> None:
    fields = {
        "model": {"type": "Linear", "out_features": 1},
        "target": "pricee",
        "inputs": ["araea", "areaa"],
    }
    assert pointers(fields, table()) == ["/target", "/inputs/0", "/inputs/1"]


RELU: dict[str, Any] = {"type": "ReLU"}


def graph(output: str | list[str], *nodes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Graph", "nodes": [RELU | node for node in nodes], "output": output}


def test_all_wrong_names_of_a_graph_are_told() -> None:
    model = graph(
        ["z", "b"],
        {"name": "a", "inputs": ["fact"]},
        {"name": "a", "inputs": ["image"]},
        {"name": "b", "inputs": ["c", "image", "imag"]},
        {"name": "c", "inputs": ["image"], "share": "d.e"},
        {"name": "f", "inputs": ["image"], "share": "forward"},
    )
    assert pointers({"model": model}) == [
        "/model/nodes/0/inputs/0",
        "/model/nodes/1/name",
        "/model/nodes/2/inputs/0",
        "/model/nodes/2/inputs/2",
        "/model/nodes/3/share",
        "/model/nodes/4/name",
        "/model/output/0",
    ]


def test_graphs_inside_others_are_looked_at_before_a_layer_that_does_not_fit() -> None:
    inner = graph("y", {"name": "x", "inputs": ["imput"]})
    layers = [{"type": "Linear", "in_features": 3, "out_features": 3}, inner, inner | {"output": "x"}]
    assert pointers({"model": {"type": "Sequential", "layers": layers}}) == [
        "/model/layers/1/nodes/0/inputs/0",
        "/model/layers/1/output",
        "/model/layers/2/nodes/0/inputs/0",
    ]


def test_a_node_that_comes_later_is_to_be_put_before() -> None:
    model = graph("a", {"name": "a", "inputs": ["b"]}, {"name": "b", "inputs": ["image"]})
    assert messages({"model": model}) == [
        'There is no input or earlier node "b": it comes later. So far there are: image. Put it before.'
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"metrics": ["accuracy", "acuracy", {"type": "F1"}, 5]},
            ["/metrics/3", "/metrics/1", "/metrics/2/type"],
        ),
        ({"metrics": [5, "acuracy"], "target": "lable"}, ["/metrics/0", "/target", "/metrics/1"]),
        ({"freeze": [5, "(", "", "nothing"]}, ["/freeze/0", "/freeze/2", "/freeze/1", "/freeze/3"]),
        (
            {
                "freeze": ["1.weight"],
                "unfreeze": [{"match": 5, "epoch": "2", "at": 1}, 5, {"match": "2", "epoch": 1}],
            },
            [
                "/unfreeze/0/match",
                "/unfreeze/0/epoch",
                "/unfreeze/0/at",
                "/unfreeze/1",
                "/unfreeze/2/match",
            ],
        ),
        ({"initialize": ["ones_", {"type": "ones"}]}, ["/initialize/0", "/initialize/1/type"]),
        (
            {"transforms": {"train": [5, {"type": "Resise"}]}},
            ["/transforms/train/0", "/transforms/train/1/type"],
        ),
        ({"target_transform": [5, {"type": "Maps"}]}, ["/target_transform/0", "/target_transform/1/type"]),
        ({"inputs": [5, "image", ""]}, ["/inputs/0", "/inputs/2"]),
    ],
)
def test_a_wrong_entry_of_a_list_does_not_hide_the_others(fields: dict[str, Any], told: list[str]) -> None:
    assert pointers(fields) == told


def test_a_wrong_entry_of_a_list_does_not_hide_the_shapes_of_the_net() -> None:
    told = pointers({"model": net(in_features=10), "freeze": [5, "("], "initialize": [5]})
    assert sorted(told) == ["/freeze/0", "/freeze/1", "/initialize/0", "/model/layers/1"]
