"""`prepare` against scikit-learn: the same numbers, from Arrow columns and from row objects."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from core.data import prepare
from core.data.inputs import NetInput
from core.data.manifest import ColumnStats
from core.data.prepare import FittedColumn, Resolved
from modelyard.specs import ProblemError
from tests import prepared
from tests.prepared import columns_of, manifest_of

ROWS: list[dict[str, Any]] = [
    {"age": 31.5, "rooms": 3, "city": "rome", "owned": True},
    {"age": None, "rooms": 1, "city": "bern", "owned": False},
    {"age": 64.25, "rooms": 4, "city": None, "owned": True},
    {"age": 8.0, "rooms": 1, "city": "bern", "owned": None},
    {"age": 31.5, "rooms": 5, "city": "oslo", "owned": True},
    {"age": None, "rooms": 9, "city": "rome", "owned": False},
]
INPUTS = ["age", "rooms", "city", "owned"]
DTYPES = {"age": "float64", "rooms": "int64", "city": "string", "owned": "bool"}


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    """[N, 1] as scikit-learn takes it."""
    is_text = DTYPES[name] == "string"
    values = [row[name] for row in rows]
    if is_text:
        return np.array(values, dtype=object)[:, None]
    return np.array([np.nan if value is None else float(value) for value in values])[:, None]


def cells_of(rows: list[dict[str, Any]], inputs: list[str] = INPUTS) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in inputs}


def group(inputs: list[str]) -> dict[str, list[str]]:
    return {"input": inputs}


def resolved(components: list[dict[str, Any]] | None, inputs: list[str] = INPUTS) -> Resolved:
    return prepared.resolved(components, manifest_of(cells_of(ROWS)), group(inputs))


def refused(components: list[dict[str, Any]], inputs: list[str] = INPUTS) -> list[ProblemError]:
    return prepared.refused(components, manifest_of(cells_of(ROWS)), group(inputs))


def fitted(components: list[dict[str, Any]] | None, inputs: list[str] = INPUTS) -> list[FittedColumn]:
    return prepared.fitted(components, cells_of(ROWS, inputs))


def applied(components: list[dict[str, Any]] | None, inputs: list[str]) -> np.ndarray[Any, Any]:
    return prepared.applied(components, cells_of(ROWS, inputs))


def from_rows(fit: list[FittedColumn], rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    (array,) = prepare.apply(
        fit, group([column.name for column in fit]), prepare.columns_from_rows(rows, fit)
    )
    return array


def test_standardize_gives_the_numbers_of_the_standard_scaler() -> None:
    expected = StandardScaler().fit_transform(column(ROWS, "rooms"))
    assert np.allclose(applied([{"type": "Standardize"}], ["rooms"]), expected, rtol=1e-6)


def test_standardize_before_impute_counts_only_the_values_present_as_the_standard_scaler_does() -> None:
    scaled = StandardScaler().fit_transform(column(ROWS, "age"))
    expected = SimpleImputer(strategy="mean").fit_transform(scaled)
    steps = [{"type": "Standardize"}, {"type": "Impute"}]
    assert np.allclose(applied(steps, ["age"]), expected, rtol=1e-6)


def test_a_constant_column_is_only_centred() -> None:
    given = prepared.applied([{"type": "Standardize", "columns": ["rooms"]}], {"rooms": [7] * 6})
    assert given.tolist() == [[0.0]] * 6


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_impute_gives_the_numbers_of_the_simple_imputer(strategy: str) -> None:
    expected = SimpleImputer(strategy=strategy).fit_transform(column(ROWS, "age"))
    given = applied([{"type": "Impute", "strategy": strategy}], ["age"])
    assert np.allclose(given, expected, rtol=1e-6)


def test_impute_then_standardize_is_the_pipeline_of_the_two() -> None:
    filled = SimpleImputer(strategy="mean").fit_transform(column(ROWS, "age"))
    expected = StandardScaler().fit_transform(filled)
    given = applied([{"type": "Impute"}, {"type": "Standardize"}], ["age"])
    assert np.allclose(given, expected, rtol=1e-6)


def test_one_hot_gives_the_numbers_of_the_one_hot_encoder_after_the_most_frequent_fill() -> None:
    filled = SimpleImputer(strategy="most_frequent", missing_values=None).fit_transform(column(ROWS, "city"))
    expected = OneHotEncoder(sparse_output=False).fit_transform(filled)
    given = applied([{"type": "OneHot"}], ["city"])
    assert given.tolist() == expected.tolist()


def test_numbers_and_bools_are_spread_where_they_are_named() -> None:
    expected = OneHotEncoder(sparse_output=False).fit_transform(column(ROWS, "rooms"))
    assert applied([{"type": "OneHot", "columns": ["rooms"]}], ["rooms"]).tolist() == expected.tolist()
    owned = [{"type": "Impute", "columns": ["owned"], "strategy": "most_frequent"}]
    given = applied([*owned, {"type": "OneHot", "columns": ["owned"]}], ["owned"])
    assert given.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]]


def test_an_unknown_category_is_all_zeros_as_with_handle_unknown_ignore() -> None:
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit([["bern"], ["oslo"], ["rome"]])
    fit = fitted(None, ["city"])
    given = from_rows(fit, [{"city": "paris"}, {"city": "oslo"}])
    assert given.tolist() == encoder.transform([["paris"], ["oslo"]]).tolist()


def test_row_objects_give_the_numbers_of_the_arrow_columns() -> None:
    fit = fitted(None)
    columns = columns_of(cells_of(ROWS), manifest_of(cells_of(ROWS)))
    (from_arrow,) = prepare.apply(fit, group(INPUTS), columns)
    assert from_arrow.dtype == np.float32
    assert from_arrow.tobytes() == from_rows(fit, ROWS).tobytes()


def test_an_absent_key_is_a_missing_value() -> None:
    fit = fitted(None)
    null = from_rows(fit, [{"age": None, "rooms": 2, "city": None, "owned": None}])
    assert prepare.check_row({"rooms": 2}, fit) is None
    assert from_rows(fit, [{"rooms": 2}]).tolist() == null.tolist()


def test_features_stand_in_the_order_of_the_inputs() -> None:
    forwards, backwards = applied(None, ["rooms", "city"]), applied(None, ["city", "rooms"])
    assert forwards.shape == (6, 4)
    assert np.array_equal(forwards, backwards[:, [3, 0, 1, 2]])
    assert resolved(None, ["rooms", "city"]).inputs == [NetInput("input", [4])]


def test_the_defaults_fill_what_is_missing_standardize_numbers_and_spread_strings() -> None:
    assert resolved(None).components == [
        {"type": "Impute", "columns": ["age", "owned"], "strategy": "mean", "fill_value": None},
        {"type": "Impute", "columns": ["city"], "strategy": "most_frequent", "fill_value": None},
        {"type": "Standardize", "columns": ["age", "rooms"]},
        {"type": "OneHot", "columns": ["city"], "max_categories": None},
    ]


def test_a_given_list_is_completed_only_by_what_a_net_cannot_do_without() -> None:
    assert resolved([]).components == [
        {"type": "Impute", "columns": ["age", "owned"], "strategy": "mean", "fill_value": None},
        {"type": "Impute", "columns": ["city"], "strategy": "most_frequent", "fill_value": None},
        {"type": "OneHot", "columns": ["city"], "max_categories": None},
    ]
    own = [{"type": "Impute", "columns": ["age"], "strategy": "most_frequent", "fill_value": None}]
    assert resolved(own, ["age", "rooms"]).components == own


def test_a_resolved_list_resolves_to_itself() -> None:
    once = resolved(None).components
    assert resolved(once).components == once


@pytest.mark.parametrize(
    ("component", "pointer", "code"),
    [
        ({"type": "Standardize", "columns": ["rooms", "price"]}, "/prepare/1/columns/1", "unknown_column"),
        ({"type": "Standardize", "columns": ["city"]}, "/prepare/1/columns/0", "wrong_column"),
        ({"type": "Impute", "columns": ["city"]}, "/prepare/1/columns/0", "wrong_column"),
        ({"type": "Impute", "columns": ["rooms", "rooms"]}, "/prepare/1/columns/1", "duplicate_column"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_pointer_to_it(
    component: dict[str, Any], pointer: str, code: str
) -> None:
    (error,) = refused([{"type": "Impute", "columns": ["age"]}, component])
    assert (error.pointer, error.code) == (pointer, code)


def test_every_wrong_column_is_reported_at_once() -> None:
    errors = refused([{"type": "Standardize", "columns": ["a", "b"]}, {"type": "OneHot", "columns": ["c"]}])
    pointers = ["/prepare/0/columns/0", "/prepare/0/columns/1", "/prepare/1/columns/0"]
    assert [error.pointer for error in errors] == pointers


@pytest.mark.parametrize(
    ("values", "code"), [(None, "too_many_categories"), ([], "empty_column")], ids=["too many", "none"]
)
def test_a_string_column_that_cannot_be_spread_is_refused(values: list[Any] | None, code: str) -> None:
    manifest = manifest_of(cells_of(ROWS))
    manifest.columns["city"] = ColumnStats(count=6, values=values)
    errors = prepared.refused(None, manifest, group(["city"]))
    assert [(error.pointer, error.code) for error in errors] == [("/inputs", code)]


def test_a_column_whose_training_rows_are_all_set_aside_gets_a_plain_fill() -> None:
    nothing = {"age": np.array([np.nan, np.nan]), "city": np.array([None, None], dtype=object)}
    components = resolved([{"type": "Impute", "strategy": "most_frequent"}], ["age", "city"]).components
    fit = prepare.fit(components, group(["age", "city"]), nothing, manifest_of(cells_of(ROWS)))
    (given,) = prepare.apply(fit, group(["age", "city"]), nothing)
    assert given.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


def test_integers_that_a_double_cannot_hold_are_rounded_as_ieee_754_rounds() -> None:
    table = pa.table({"id": pa.array([2**53 + 1, 2**62], pa.int64())})
    assert prepare.columns_from_arrow(table, ["id"])["id"].tolist() == [2.0**53, 2.0**62]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1, 2], "expected an object"),
        ({"rooms": 1, "price": 2}, "unknown columns ['price']"),
        ({"age": 3.0}, "'rooms' is missing"),
        ({"rooms": "3"}, "'rooms': expected a number, got str"),
        ({"rooms": True}, "'rooms': expected a number, got bool"),
        ({"rooms": 10**400}, "'rooms': expected a finite number"),
        ({"rooms": float("nan")}, "'rooms': expected a finite number"),
        ({"rooms": 1, "city": 7}, "'city': expected a string, got int"),
        ({"rooms": 1, "owned": 1}, "'owned': expected true or false, got int"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_why(row: object, words: str) -> None:
    wrong = prepare.check_row(row, fitted(None))
    assert wrong is not None
    assert words in wrong
