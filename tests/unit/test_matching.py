"""Patterns on parameter names."""

import time

import pytest

from core.nets.matching import BadPattern, check_matches, full_matches
from modelyard.specs import ProblemError

NAMES = ["0.weight", "0.bias", "10.weight", "fc.weight"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"0\..*", ["0.weight", "0.bias"]),
        (r".*\.weight", ["0.weight", "10.weight", "fc.weight"]),
        ("fc", []),
        (r"(?i)FC\.WEIGHT", ["fc.weight"]),
        (r"0\.weight|0\.bias", ["0.weight", "0.bias"]),
    ],
)
def test_a_pattern_matches_whole_names_in_their_order(pattern: str, expected: list[str]) -> None:
    assert full_matches(pattern, NAMES) == expected


@pytest.mark.parametrize("pattern", ["(", "(?=fc).*", r"(.)\1", "a{2000}", "*"])
def test_a_pattern_that_is_not_regular_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(BadPattern, match=r"missing|invalid|bad|no argument"):
        full_matches(pattern, NAMES)
    errors: list[ProblemError] = []
    assert check_matches(pattern, NAMES, "/freeze/0", errors) == []
    assert [(error.pointer, error.code) for error in errors] == [("/freeze/0", "invalid_pattern")]


def test_a_pattern_that_matches_nothing_is_told_the_names_there_are() -> None:
    errors: list[ProblemError] = []
    check_matches("fc", NAMES, "/freeze/0", errors)
    (error,) = errors
    assert (error.pointer, error.code) == ("/freeze/0", "matches_nothing")
    assert "0.weight, 0.bias, 10.weight, fc.weight" in error.message
    assert ".*" in error.message


def test_a_pattern_that_ties_up_a_backtracking_engine_costs_nothing() -> None:
    began = time.perf_counter()
    assert full_matches("(a*)*b", ["a" * 2000]) == []
    with pytest.raises(BadPattern):
        full_matches("((a{100}){100}){100}", NAMES)
    assert time.perf_counter() - began < 1
