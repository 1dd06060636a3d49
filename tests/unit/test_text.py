"""Text on its way to the net: what is planned, and which indices come out."""

from typing import Any

import numpy as np
import pytest

from core.data import prepare
from core.data.inputs import NetInput
from core.data.prepare.text import Tokens, pad, truncate
from tests import prepared
from tests.prepared import columns_of, manifest_of

TEXTS = ["The cat sat.", "the CAT, the dog!", "A dog", "ünï_1 naïve?! 12"]
CELLS: dict[str, list[Any]] = {"review": TEXTS, "stars": [1.0, 2.0, 3.0, 4.0]}


def indices(
    components: list[dict[str, Any]] | None, later: list[str | None] | None = None
) -> list[list[int]]:
    cells = None if later is None else {"review": later}
    given: list[list[int]] = prepared.applied(components, {"review": TEXTS}, ["review"], cells).tolist()
    return given


def test_words_are_numbered_by_frequency_and_then_by_codepoint() -> None:
    fit = prepared.fitted([{"type": "Words"}], {"review": ["b a", "b é B", "a b ?!"]}, ["review"])
    assert fit[0].operations[0].words == ["b", "a", "?!", "B", "é"]  # type: ignore[union-attr]


def test_words_end_at_white_space_and_where_marks_begin() -> None:
    texts = ["naïve_1, ?!don't\t日本 5.0"]
    words = ["naïve_1", ",", "?!", "don", "'", "t", "日本", "5", ".", "0"]
    fit = prepared.fitted([{"type": "Words"}], {"review": texts}, ["review"])
    assert sorted(fit[0].operations[0].words) == sorted(words)  # type: ignore[union-attr]


def test_unknown_words_are_one_and_padding_is_nought() -> None:
    steps = [{"type": "Lowercase"}, {"type": "Words"}, {"type": "Truncate", "length": 4}]
    # the 3, cat 2, dog 2, then ! , . 12 ?! a naïve sat ünï_1 by codepoint
    assert indices(steps, ["The zebra", "dog! the cat sat", "", None]) == [
        [2, 1, 0, 0],
        [4, 5, 2, 3],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_max_tokens_counts_padding_and_unknown() -> None:
    steps = [{"type": "Lowercase"}, {"type": "Words", "max_tokens": 3}, {"type": "Truncate", "length": 3}]
    assert indices(steps) == [[2, 1, 1], [2, 1, 1], [1, 1, 0], [1, 1, 1]]


def test_the_vocabulary_is_of_the_training_rows_alone() -> None:
    manifest, inputs = manifest_of({"review": TEXTS}, ["review"]), {"review": ["review"]}
    plan = prepared.resolved(None, manifest, inputs)
    columns = columns_of({"review": TEXTS[:2]}, manifest)
    fit = prepare.fit(plan.components, inputs, columns, manifest)
    changed = columns_of({"review": [*TEXTS[:2], "dog dog dog", "never seen"]}, manifest)
    (given,) = prepare.apply(fit, inputs, changed)
    assert given[3, :2].tolist() == [1, 1]
    assert given[2, 0] == given[1, 4]


def test_bytes_are_those_of_utf_8_each_plus_one() -> None:
    steps = [{"type": "Bytes"}, {"type": "Truncate", "length": 20}]
    assert indices(steps) == [
        [byte + 1 for byte in text.encode()[:20]] + [0] * (20 - len(text.encode())) for text in TEXTS
    ]


@pytest.mark.parametrize(
    ("cut", "padded", "expected"),
    [
        ("right", "right", [[1, 2, 0], [3, 4, 5], [0, 0, 0]]),
        ("left", "right", [[1, 2, 0], [5, 6, 7], [0, 0, 0]]),
        ("right", "left", [[0, 1, 2], [3, 4, 5], [0, 0, 0]]),
        ("left", "left", [[0, 1, 2], [5, 6, 7], [0, 0, 0]]),
    ],
)
def test_tokens_are_cut_and_padded_on_the_side_that_is_named(
    cut: Any, padded: Any, expected: list[list[int]]
) -> None:
    tokens = Tokens(np.arange(1, 8), np.array([2, 5, 0]))
    assert pad(truncate(tokens, 3, cut), 3, padded, 0).tolist() == expected


def test_free_text_is_prepared_by_default_as_lower_case_words_of_one_length() -> None:
    plan = prepared.resolved(None, manifest_of(CELLS, ["review"]), {"review": ["review"], "rest": ["stars"]})
    assert [(step["type"], step["columns"]) for step in plan.components] == [
        ("Standardize", ["stars"]),
        ("Lowercase", ["review"]),
        ("Words", ["review"]),
        ("Truncate", ["review"]),
        ("Pad", ["review"]),
    ]
    assert plan.inputs == [NetInput("review", [256], "int64", 10_000), NetInput("rest", [1])]


def test_a_resolved_list_for_text_resolves_to_itself() -> None:
    manifest, inputs = manifest_of({"review": [*TEXTS, None, "z"]}, ["review"]), {"review": ["review"]}
    once = prepared.resolved(None, manifest, inputs)
    assert [step["type"] for step in once.components] == ["Impute", "Lowercase", "Words", "Truncate", "Pad"]
    assert prepared.resolved(once.components, manifest, inputs) == once


def test_a_given_list_for_text_is_completed_by_tokens_of_one_length() -> None:
    manifest, inputs = manifest_of({"review": TEXTS}, ["review"]), {"review": ["review"]}
    assert [step["type"] for step in prepared.resolved([], manifest, inputs).components] == [
        "Words",
        "Truncate",
        "Pad",
    ]
    shorter = prepared.resolved([{"type": "Bytes"}, {"type": "Pad", "length": 9}], manifest, inputs)
    assert shorter.inputs == [NetInput("review", [9], "int64", 257)]
    longer = [{"type": "Truncate", "length": 4}, {"type": "Pad", "length": 6}]
    given = prepared.resolved([{"type": "Words", "max_tokens": 50}, *longer], manifest, inputs)
    assert given.inputs == [NetInput("review", [6], "int64", 50)]


def test_text_with_missing_rows_takes_a_missing_text_for_an_empty_one() -> None:
    fit = prepared.fitted(None, {"review": [*TEXTS, None, "z"]}, ["review"])
    assert prepare.check_row({}, fit) is None
    (given,) = prepare.apply(fit, {"input": ["review"]}, prepare.columns_from_rows([{}], fit))
    assert not given.any()


def test_text_beside_other_columns_of_one_input_is_refused_with_the_way_out() -> None:
    errors = prepared.refused(None, manifest_of(CELLS, ["review"]), {"input": ["stars", "review"]})
    assert [(error.pointer, error.code) for error in errors] == [("/inputs", "mixed_input")]
    assert '"inputs": {"review": ["review"]' in errors[0].message
    named = {"left": ["stars"], "right": ["review", "stars"]}
    errors = prepared.refused(None, manifest_of(CELLS, ["review"]), named)
    assert [error.pointer for error in errors] == ["/inputs/right"]


def test_padding_shorter_than_the_text_is_refused() -> None:
    steps = [{"type": "Words"}, {"type": "Truncate", "length": 9, "columns": ["review"]}]
    pad_step = {"type": "Pad", "length": 8, "columns": ["review"]}
    manifest = manifest_of({"review": TEXTS}, ["review"])
    errors = prepared.refused([*steps, pad_step], manifest, {"input": ["review"]})
    assert [(error.pointer, error.code) for error in errors] == [("/prepare/2/columns/0", "wrong_length")]


def test_a_string_column_that_is_not_marked_is_text_where_a_step_names_it() -> None:
    words = {"type": "Words", "columns": ["review"], "max_tokens": 20}
    plan = prepared.resolved([words], manifest_of({"review": TEXTS}), {"input": ["review"]})
    assert plan.inputs == [NetInput("input", [256], "int64", 20)]


def test_a_text_column_can_be_spread_where_a_step_says_so() -> None:
    manifest = manifest_of({"review": TEXTS}, ["review"])
    spread = {"type": "OneHot", "columns": ["review"], "max_categories": 3}
    assert prepared.resolved([spread], manifest, {"input": ["review"]}).inputs == [NetInput("input", [3])]


def test_a_row_of_text_gives_the_indices_of_its_column() -> None:
    fit = prepared.fitted(None, {"review": TEXTS}, ["review"])
    inputs = {"input": ["review"]}
    (together,) = prepare.apply(fit, inputs, {"review": np.array(TEXTS, dtype=object)})
    for text, expected in zip(TEXTS, together, strict=True):
        (alone,) = prepare.apply(fit, inputs, prepare.columns_from_rows([{"review": text}], fit))
        assert alone[0].tolist() == expected.tolist()


def test_half_a_surrogate_pair_is_the_row_s_own_error() -> None:
    fit = prepared.fitted([{"type": "Bytes"}], {"review": TEXTS}, ["review"])
    wrong = prepare.check_row({"review": "a\ud800"}, fit)
    assert wrong is not None
    assert "surrogate" in wrong
