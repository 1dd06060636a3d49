"""What steps do to a column one after the other, what is refused, and what is stored."""

import datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from core.data import prepare
from core.data.inputs import NetInput
from core.data.manifest import MAX_LISTED_VALUES
from core.data.prepare import FittedColumn
from core.data.prepare.legacy import upgraded
from core.errors import Invalid
from tests import prepared
from tests.prepared import columns_of, manifest_of

DATES = ["2024-02-29", "2023-12-31T23:59:00", None, "1999-07-04 06:30", "2024-12-31T00:00:00+02:00"]
PARTS = ["year", "month", "day", "weekday", "dayofyear", "hour", "minute"]
CELLS: dict[str, list[Any]] = {
    "size": [1.0, 2.5, 4.0, 100.0, 3.0],
    "grade": ["low", "high", "Low", None, "middle"],
    "when": DATES,
    "paid": [True, False, True, True, False],
}


def refusals(components: list[dict[str, Any]], *names: str) -> list[tuple[str, str]]:
    cells = {name: CELLS[name] for name in names or CELLS}
    errors = prepared.refused(components, manifest_of(cells), {"input": list(cells)})
    return [(error.pointer, error.code) for error in errors]


def test_dates_become_the_parts_that_python_reads_in_them() -> None:
    def parts(text: str) -> list[float]:
        date = datetime.datetime.fromisoformat(text)
        first = datetime.datetime(date.year, 1, 1, tzinfo=date.tzinfo)
        day = (date - first).days + 1
        return [date.year, date.month, date.day, date.isoweekday() - 1, day, date.hour, date.minute]

    steps = [
        {"type": "DateParts", "columns": ["when"], "parts": PARTS},
        {"type": "Impute", "strategy": "constant", "fill_value": -1},
    ]
    given = prepared.applied(steps, {"when": DATES})
    assert given.tolist() == [[-1.0] * 7 if date is None else parts(date) for date in DATES]


def test_parts_of_a_date_are_numbers_that_a_later_step_takes() -> None:
    dates = {"when": ["2020-01-01", "2022-01-03", "2021-01-02"]}
    date_parts = {"type": "DateParts", "columns": ["when"], "parts": ["year", "weekday"]}
    given = prepared.applied([date_parts, {"type": "MinMax"}], dates)
    assert np.allclose(given, [[0, 0.4], [1, 0], [0.5, 1]])


def test_parts_with_an_end_are_spread_over_the_calendar() -> None:
    date_parts = {"type": "DateParts", "columns": ["when"], "parts": ["month", "weekday"]}
    steps = [date_parts, {"type": "OneHot", "columns": ["when"]}]
    given = prepared.applied(steps, {"when": ["2024-03-05", "2024-12-01"]})
    assert given.shape == (2, 12 + 7)
    assert [np.flatnonzero(row).tolist() for row in given] == [[2, 12 + 1], [11, 12 + 6]]
    date_parts["parts"] = ["year"]
    assert refusals(steps, "when") == [("/prepare/1/columns/0", "too_many_categories")]


def test_lower_case_merges_the_categories_that_are_spread() -> None:
    steps = [{"type": "Lowercase", "columns": ["grade"]}, {"type": "OneHot", "columns": ["grade"]}]
    given = prepared.applied(steps, {"grade": ["low", "High", "LOW", "high"]})
    assert given.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_a_constant_that_fills_is_a_category_of_its_own() -> None:
    fill = {"type": "Impute", "strategy": "constant", "fill_value": "none", "columns": ["grade"]}
    given = prepared.applied([fill], {"grade": ["low", None, "zero"]})
    assert given.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_given_categories_have_the_order_in_which_they_stand() -> None:
    ordinal = {"type": "Ordinal", "columns": ["grade"], "categories": ["low", "middle", "high"]}
    given = prepared.applied([ordinal], {"grade": ["high", "low", "huge", "middle"]})
    assert given.tolist() == [[2], [0], [-1], [1]]


def test_clip_cuts_off_at_its_bounds() -> None:
    given = prepared.applied([{"type": "Clip", "min": 2, "max": 50}], {"size": CELLS["size"]})
    assert given.tolist() == [[2], [2.5], [4], [50], [3]]


def test_steps_of_one_column_act_in_the_order_of_the_list() -> None:
    clip, scale = {"type": "Clip", "max": 4}, {"type": "MinMax"}
    cells = {"size": CELLS["size"]}
    assert np.allclose(prepared.applied([clip, scale], cells)[:, 0], [0, 0.5, 1, 1, 2 / 3])
    assert prepared.applied([scale, clip], cells)[3, 0] == 1


def test_standardize_for_all_leaves_out_columns_that_are_spread_by_name() -> None:
    steps = [{"type": "Standardize"}, {"type": "OneHot", "columns": ["size"]}]
    given = prepared.resolved(steps, manifest_of(CELLS), {"input": ["size", "paid"]})
    assert [step["type"] for step in given.components] == ["OneHot"]


def test_two_inputs_hold_their_own_columns() -> None:
    inputs = {"left": ["size", "paid"], "right": ["grade", "size"]}
    manifest = manifest_of(CELLS)
    plan = prepared.resolved(None, manifest, inputs)
    assert plan.inputs == [NetInput("left", [2]), NetInput("right", [5])]
    fit = prepare.fit(plan.components, inputs, columns_of(CELLS, manifest), manifest)
    left_NF, right_NF = prepare.apply(fit, inputs, columns_of(CELLS, manifest))
    assert left_NF[:, 0].tolist() == right_NF[:, 4].tolist()
    assert left_NF[:, 1].tolist() == [1, 0, 1, 1, 0]


def test_a_date_that_cannot_be_read_is_named_with_its_row() -> None:
    dates = {"when": ["2024-01-01", "01.02.2024", *map(str, range(MAX_LISTED_VALUES))]}
    with pytest.raises(Invalid, match=r"'01\.02\.2024' in row 1"):
        prepared.applied([{"type": "DateParts", "columns": ["when"]}], dates)


def test_a_row_is_checked_for_what_the_column_was() -> None:
    steps = [
        {"type": "DateParts", "columns": ["when"]},
        {"type": "Impute", "columns": ["when"]},
        {"type": "Ordinal", "columns": ["grade"]},
    ]
    cells = {"when": DATES, "grade": ["a", "b", "a", "b", "a"]}
    fit = prepared.fitted(steps, cells)
    assert prepare.check_row({"when": "2024-01-01", "grade": "c"}, fit) is None
    assert prepare.check_row({"grade": "a"}, fit) is None
    bad_date = prepare.check_row({"when": "yesterday", "grade": "a"}, fit)
    assert bad_date is not None
    assert "ISO 8601" in bad_date
    assert prepare.check_row({"when": 20240101, "grade": "a"}, fit) == "'when': expected a string, got int"
    assert prepare.check_row({"grade": 1.0}, fit) == "'grade': expected a string, got float"
    missing = prepare.check_row({"when": "2024-01-01"}, fit)
    assert missing == "'grade' is missing and the training rows had it always"


@pytest.mark.parametrize(
    ("component", "pointer", "code"),
    [
        ({"type": "Impute", "strategy": "constant"}, "/prepare/0/fill_value", "invalid_value"),
        ({"type": "Impute", "fill_value": 3}, "/prepare/0/fill_value", "invalid_value"),
        (
            {"type": "Impute", "strategy": "median", "columns": ["grade"]},
            "/prepare/0/columns/0",
            "wrong_column",
        ),
        ({"type": "Clip"}, "/prepare/0", "invalid_value"),
        ({"type": "Clip", "min": 2, "max": 1}, "/prepare/0/max", "invalid_value"),
        ({"type": "Clip", "min": 2, "quantiles": [0, 1]}, "/prepare/0/quantiles", "invalid_value"),
        ({"type": "Clip", "quantiles": [0.9, 0.1]}, "/prepare/0/quantiles", "invalid_value"),
        ({"type": "MinMax", "feature_range": [1, 1]}, "/prepare/0/feature_range", "invalid_value"),
        ({"type": "MinMax", "columns": ["paid"]}, "/prepare/0/columns/0", "wrong_column"),
        ({"type": "DateParts", "columns": ["size"]}, "/prepare/0/columns/0", "wrong_column"),
        (
            {"type": "DateParts", "columns": ["when"], "parts": ["day", "day"]},
            "/prepare/0/parts",
            "invalid_value",
        ),
        (
            {"type": "Ordinal", "columns": ["size"], "categories": ["a"]},
            "/prepare/0/columns/0",
            "wrong_categories",
        ),
        (
            {"type": "Ordinal", "columns": ["grade"], "categories": ["a", "a"]},
            "/prepare/0/categories",
            "invalid_value",
        ),
        ({"type": "Truncate", "columns": ["grade"]}, "/prepare/0/columns/0", "wrong_column"),
    ],
)
def test_steps_that_make_no_sense_are_refused_with_a_pointer(
    component: dict[str, Any], pointer: str, code: str
) -> None:
    assert (pointer, code) in refusals([component])


def test_what_has_been_spread_takes_no_other_step() -> None:
    spread = {"type": "OneHot", "columns": ["size"]}
    assert refusals([spread, {"type": "MinMax", "columns": ["size"]}]) == [
        ("/prepare/1/columns/0", "wrong_column")
    ]


def test_stored_columns_are_read_back_and_give_the_same_numbers_to_the_bit() -> None:
    steps = [
        {"type": "Clip", "columns": ["size"], "quantiles": [0.1, 0.9]},
        {"type": "Standardize", "columns": ["size"]},
        {"type": "OneHot", "columns": ["grade"], "max_categories": 2},
        {"type": "DateParts", "columns": ["when"], "parts": PARTS},
        {"type": "Impute", "columns": ["when"]},
        {"type": "MinMax", "columns": ["when"]},
    ]
    fit = prepared.fitted(steps, CELLS)
    again = msgspec.json.decode(msgspec.json.encode(fit), type=list[FittedColumn])
    assert again == fit
    columns, inputs = columns_of(CELLS, manifest_of(CELLS)), {"input": list(CELLS)}
    (first,), (second,) = prepare.apply(fit, inputs, columns), prepare.apply(again, inputs, columns)
    assert first.tobytes() == second.tobytes()


def test_columns_of_a_version_of_format_1_answer_as_they_did() -> None:
    stored = [
        {"name": "size", "kind": "number", "fill": 3.0, "mean": 2.0, "std": 4.0},
        {"name": "paid", "kind": "bool"},
        {"name": "grade", "kind": "string", "fill": "b", "categories": ["a", "b"]},
        {"name": "rooms", "kind": "number", "categories": [1, 3]},
    ]
    fit = msgspec.convert(upgraded(stored), list[FittedColumn])
    rows: list[dict[str, Any]] = [
        {"size": 10, "paid": True, "grade": "a", "rooms": 3},
        {"size": None, "paid": False, "grade": None, "rooms": 2},
    ]
    assert prepare.check_row(rows[1], fit) is None
    columns = prepare.columns_from_rows(rows, fit)
    (given,) = prepare.apply(fit, {"input": [column.name for column in fit]}, columns)
    assert given.tolist() == [[2, 1, 1, 0, 0, 1], [0.25, 0, 0, 1, 0, 0]]
