"""Types and statistics of a table's columns, against numpy and the standard library."""

import statistics

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from workers.ingest.columns import Summary, convert, narrow, unite


def _narrowed(*batches: list[str | None]) -> str | None:
    known = None
    for cells in batches:
        known = narrow(known, pa.array(cells, pa.string()))
    return known


@pytest.mark.parametrize(
    ("batches", "dtype"),
    [
        ([["1", "-2", None]], "int64"),
        ([["1"], ["2.5"]], "float64"),
        ([["2.5"], ["1"]], "float64"),
        ([["1"], ["x"]], "string"),
        ([["99999999999999999999"]], "float64"),
        ([["true", "FALSE"]], "bool"),
        ([["true"], ["1"]], "string"),
        ([["2024-01-31"]], "string"),
        ([[None], [None, "7"]], "int64"),
        ([["0", "1"]], "int64"),
    ],
)
def test_a_column_takes_the_narrowest_type_that_holds_every_batch(
    batches: list[list[str | None]], dtype: str
) -> None:
    assert _narrowed(*batches) == dtype


def test_a_column_without_values_has_no_type_yet() -> None:
    assert _narrowed([None, None]) is None


def test_bools_are_read_in_any_case() -> None:
    assert convert(pa.array(["True", "false", None]), "bool").to_pylist() == [True, False, None]


def test_nan_is_a_missing_value() -> None:
    assert convert(pa.array(["1.5", "nan", None]), "float64").to_pylist() == [1.5, None, None]


def test_two_files_agree_on_float_where_one_has_integers() -> None:
    assert unite("x", "int64", "float64") == "float64"
    with pytest.raises(Invalid, match="int64 and another string"):
        unite("x", "int64", "string")


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=6))
def test_statistics_over_batches_equal_those_over_everything(batches: list[list[float]]) -> None:
    summary = Summary()
    for batch in batches:
        summary.add(pa.array(batch, pa.float64()))
    stats = summary.result()
    everything = [value for batch in batches for value in batch]
    assert stats.count == len(everything)
    if everything:
        assert stats.mean == pytest.approx(statistics.fmean(everything), abs=1e-6)
        assert stats.std == pytest.approx(statistics.pstdev(everything), abs=1e-5)
        assert (stats.min, stats.max) == (min(everything), max(everything))


def test_a_large_mean_leaves_the_deviation_its_digits() -> None:
    values = 1e9 + np.random.default_rng(0).standard_normal(10_000)
    summary = Summary()
    for part in np.split(values, 10):
        summary.add(pa.array(part))
    assert summary.result().std == pytest.approx(float(np.std(values)), rel=1e-9)


def test_values_are_listed_sorted_with_their_counts() -> None:
    summary = Summary()
    summary.add(pa.array([10, 9, None, 10]))
    summary.add(pa.array([9, 10]))
    stats = summary.result()
    assert stats.values == [(9, 2), (10, 3)]
    assert (stats.count, stats.missing) == (5, 1)


def test_more_than_a_thousand_values_are_not_listed() -> None:
    summary = Summary()
    summary.add(pa.array(range(1000)))
    assert summary.result().values is not None
    summary.add(pa.array([1000]))
    assert summary.result().values is None
