"""The steps of `prepare` in the registry: found, described and checked like any component."""

from typing import Any

import msgspec
import pytest

from core.data.prepare.steps import STEPS, Step
from core.nets import registry
from modelyard.specs import ProblemError

NEEDED: dict[str, dict[str, Any]] = {
    "DateParts": {"columns": ["when"]},
    "Tokenizer": {"file": {"upload": "up_1"}, "vocab_size": 9},
}


def checked(component: dict[str, Any]) -> tuple[dict[str, Any] | None, list[ProblemError]]:
    errors: list[ProblemError] = []
    return registry.check_component("prepare", component, "/prepare/0", errors), errors


def test_the_catalogue_lists_every_step_with_a_line_of_docs() -> None:
    listed = registry.catalogue("prepare")
    assert [info.type for info in listed] == [step.__name__ for step in STEPS]
    assert all(info.doc for info in listed)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_checked_step_has_the_defaults_of_its_struct(step: type[Step]) -> None:
    given = {"type": step.__name__, **NEEDED.get(step.__name__, {})}
    component, errors = checked(given)
    assert errors == []
    plain = msgspec.json.decode(msgspec.json.encode(msgspec.convert(given, Step)))
    assert component == plain


@pytest.mark.parametrize(
    ("component", "pointer", "words"),
    [
        ({"type": "Standardise"}, "/prepare/0/type", 'Did you mean "Standardize"?'),
        ({"type": "OneHot", "max_category": 3}, "/prepare/0/max_category", 'Did you mean "max_categories"?'),
        ({"type": "Impute", "strategy": "medium"}, "/prepare/0/strategy", '"median"'),
        ({"type": "DateParts"}, "/prepare/0", "columns"),
        ({"type": "DateParts", "columns": "*"}, "/prepare/0/columns", "list of string"),
        ({"type": "Words", "max_tokens": 2}, "/prepare/0/max_tokens", "integer >= 3"),
        ({"type": "Pad", "length": 10**6}, "/prepare/0/length", "65536"),
        ({"type": "Tokenizer", "file": "vocab.json", "vocab_size": 9}, "/prepare/0/file", "upload"),
        ({"type": "MinMax", "feature_range": [0, 1, 2]}, "/prepare/0/feature_range", "list of 2 number"),
    ],
)
def test_a_wrong_step_is_told_where_and_what_is_right(
    component: dict[str, Any], pointer: str, words: str
) -> None:
    given, (error,) = checked(component)
    assert given is None
    assert error.pointer == pointer
    assert words in error.message


def test_a_step_may_name_as_many_columns_as_a_table_has() -> None:
    names = [f"column {place} " + "long" * 100 for place in range(10_000)]
    component, errors = checked({"type": "Standardize", "columns": names})
    assert errors == []
    assert component is not None
    assert component["columns"] == names
