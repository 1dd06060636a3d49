"""One wrong part of a spec doesn't hide another: what can be told without it is told along with it."""

from typing import Any

import pytest

from core.data.manifest import Manifest
from core.errors import Invalid
from core.nets.plan import Source, check
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


def pointers(fields: dict[str, Any], manifest: Manifest | None = None) -> list[str]:
    spec = {"name": "m", "dataset": "d", "model": net()} | fields
    with pytest.raises(Invalid) as caught:
        check(spec, Source("d@1", manifest or images()))
    return [error.pointer for error in caught.value.errors]


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
