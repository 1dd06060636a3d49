"""What splits beside train hold and a worker could not use is told by the plan."""

from typing import Any

import msgspec
import pytest

from core.data.manifest import Manifest
from core.errors import Invalid
from core.nets.plan import Checked, Source, check
from tests.prepared import manifest_of

CELLS: dict[str, list[Any]] = {
    "x": [0.5, 1.5, 2.5, 3.5] * 5,
    "city": ["bern", "rome", "oslo", "rome"] * 5,
    "day": ["2024-02-29", "2024-03-01", "2025-01-01", "2025-01-02"] * 5,
    "label": ["yes", "no", "yes", "no"] * 5,
    "count": [0, 1, 2, 1] * 5,
    "warm": [0, 1, 0, 1] * 5,
    "wet": [1, 1, 0, 0] * 5,
}


def manifest(**fields: Any) -> Manifest:
    whole = manifest_of(CELLS)
    return msgspec.structs.replace(whole, splits=whole.splits | {"test": 4}, **fields)


def planned(source: Manifest, outputs: int = 2, **fields: Any) -> Checked:
    model = {"type": "Linear", "out_features": outputs}
    spec = {"name": "m", "dataset": "d", "model": model, "inputs": ["x", "city"], "target": "label"}
    return check(spec | fields, Source("d@1", source))


def refusals(source: Manifest, outputs: int = 2, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        planned(source, outputs, **fields)
    return [(error.pointer, error.code) for error in caught.value.errors]


def unseen(name: str, *values: Any) -> Manifest:
    return manifest(splits_unseen={"test": {name: list(values)}})


def test_a_label_of_another_split_that_train_lacks_is_refused() -> None:
    assert refusals(unseen("label", "maybe")) == [("/target", "unseen_targets")]


def test_a_label_that_train_lacks_is_no_matter_where_its_column_is_no_target() -> None:
    planned(unseen("city", "lima"))


def test_a_label_that_train_lacks_is_taken_where_another_is_renamed_to_it() -> None:
    renamed = [{"type": "Map", "labels": ["no"], "to": "maybe"}]
    planned(unseen("label", "maybe"), target_transform=renamed)


def test_a_quantity_that_train_lacks_is_a_quantity_and_falls_into_a_bin() -> None:
    planned(unseen("count", 7), 1, target="count", task="regression")
    planned(unseen("count", 7), target="count", target_transform=[{"type": "Bin", "edges": [1.0]}])


def test_a_negative_quantity_of_another_split_has_no_logarithm() -> None:
    fields: dict[str, Any] = {"target": "count", "target_transform": [{"type": "Log1p"}]}
    assert refusals(unseen("count", -3), 1, **fields) == [("/target", "unseen_targets")]


def test_a_label_that_is_neither_yes_nor_no_is_refused() -> None:
    fields: dict[str, Any] = {"target": ["warm", "wet"], "task": "multilabel"}
    assert refusals(unseen("wet", 2), **fields) == [("/target", "unseen_targets")]


@pytest.mark.parametrize(("outputs", "fields"), [(2, {}), (1, {"target": "count", "task": "regression"})])
def test_a_target_that_another_split_lacks_is_refused(outputs: int, fields: dict[str, Any]) -> None:
    name = fields.get("target", "label")
    source = manifest(splits_missing={"test": {name: 1}})
    assert refusals(source, outputs, **fields) == [("/target", "missing_targets")]


@pytest.mark.parametrize(("name", "strategy"), [("x", "mean"), ("city", "most_frequent")])
def test_an_input_that_another_split_lacks_is_filled_as_one_of_train(name: str, strategy: str) -> None:
    checked = planned(manifest(splits_missing={"test": {name: 1}}))
    (fill,) = [step for step in checked.spec["prepare"] if step["type"] == "Impute"]
    assert (fill["columns"], fill["strategy"]) == ([name], strategy)


def test_what_is_no_date_is_told_where_its_values_are_known() -> None:
    def parts(column: str) -> dict[str, Any]:
        return {"inputs": ["x", column], "prepare": [{"type": "DateParts", "columns": [column]}]}

    planned(manifest(), **parts("day"))
    assert refusals(manifest(), **parts("city")) == [("/prepare/0/columns/0", "bad_date")]


@pytest.mark.parametrize(
    ("step", "pointer"),
    [
        ({"type": "Standardise"}, "/prepare/1/type"),
        ({"type": "Impute", "strategie": "mean"}, "/prepare/1/strategie"),
        ({"type": 3}, "/prepare/1"),
        ({"type": "Truncate", "length": 10**9}, "/prepare/1/length"),
    ],
)
def test_a_step_of_prepare_that_is_none_has_its_pointer(step: dict[str, Any], pointer: str) -> None:
    (found,) = refusals(manifest(), prepare=[{"type": "Standardize"}, step])
    assert found[0] == pointer
