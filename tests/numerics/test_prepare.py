"""`prepare` against scikit-learn on real tables, learned on some rows and applied to others."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from core.data.prepare import FittedColumn, apply
from core.data.targets import Targets
from modelyard.specs import Split
from tests import prepared
from tests.prepared import Cells
from workers.loaders import Source, open_rows

# N rows, F features

SETS = {"diabetes": load_diabetes, "wine": load_wine, "breast cancer": load_breast_cancer}


def halves(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Every other row, and the others; every seventh value is missing."""
    x_NF = SETS[name]().data.astype(np.float64)
    x_NF.reshape(-1)[::7] = np.nan
    return x_NF[::2], x_NF[1::2]


def cells(x_NF: np.ndarray[Any, Any]) -> dict[str, list[Any]]:
    return {
        f"c{place}": [None if np.isnan(value) else value for value in column.tolist()]
        for place, column in enumerate(x_NF.T)
    }


def transformed(components: list[dict[str, Any]], train: Cells, later: Cells) -> np.ndarray[Any, Any]:
    return prepared.applied(components, train, later=later)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_impute_then_standardize_gives_the_numbers_of_the_pipeline_of_the_two(
    name: str, strategy: str
) -> None:
    train, later = halves(name)
    pipeline = make_pipeline(SimpleImputer(strategy=strategy), StandardScaler()).fit(train)
    steps = [{"type": "Impute", "strategy": strategy}, {"type": "Standardize"}]
    for rows in (train, later):
        given = transformed(steps, cells(train), cells(rows))
        np.testing.assert_allclose(given, pipeline.transform(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_standardize_then_impute_gives_the_numbers_of_the_pipeline_of_the_two(name: str) -> None:
    train, later = halves(name)
    pipeline = make_pipeline(
        StandardScaler(), SimpleImputer(strategy="constant", fill_value=-3.5), MinMaxScaler()
    ).fit(train)
    steps = [
        {"type": "Standardize"},
        {"type": "Impute", "strategy": "constant", "fill_value": -3.5},
        {"type": "MinMax"},
    ]
    given = transformed(steps, cells(train), cells(later))
    np.testing.assert_allclose(given, pipeline.transform(later), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SETS)
def test_min_max_gives_the_numbers_of_the_min_max_scaler_beyond_the_range_too(name: str) -> None:
    train, later = (np.nan_to_num(half) for half in halves(name))
    scaler = MinMaxScaler((-1, 3)).fit(train)
    given = transformed([{"type": "MinMax", "feature_range": [-1, 3]}], cells(train), cells(later))
    np.testing.assert_allclose(given, scaler.transform(later), rtol=1e-5, atol=1e-6)
    assert given.max() > 3


@pytest.mark.parametrize("name", SETS)
def test_clip_by_quantiles_gives_numpys_quantiles_of_the_training_rows(name: str) -> None:
    train, later = (np.nan_to_num(half) for half in halves(name))
    low_F, high_F = np.quantile(train, [0.05, 0.9], axis=0)
    given = transformed([{"type": "Clip", "quantiles": [0.05, 0.9]}], cells(train), cells(later))
    np.testing.assert_allclose(given, later.clip(low_F, high_F), rtol=1e-6)


def words() -> tuple[list[str | None], list[str | None]]:
    """The words of a page, and those of another; some are missing."""
    pages = [load_diabetes().DESCR.split(), load_wine().DESCR.split()]
    first, second = ([None if place % 11 == 0 else word for place, word in enumerate(page)] for page in pages)
    return first, second


def column(values: list[Any]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)[:, None]


def with_nan(values: list[str | None]) -> np.ndarray[Any, Any]:
    """The encoder takes None for one more category."""
    return column([np.nan if value is None else value for value in values])


def test_ordinal_gives_the_numbers_of_the_ordinal_encoder_for_unknown_and_filled_values() -> None:
    train, later = words()
    encoder = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="nothing", missing_values=None),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ).fit(column(train))
    steps = [{"type": "Impute", "strategy": "constant", "fill_value": "nothing"}, {"type": "Ordinal"}]
    given = transformed(steps, {"word": train}, {"word": later})
    assert given.tolist() == encoder.transform(column(later)).tolist()
    assert given.min() == -1


def test_a_missing_string_stays_missing_through_ordinal_and_is_filled_after_it() -> None:
    train, later = words()
    pipeline = make_pipeline(OrdinalEncoder(), SimpleImputer(strategy="median")).fit(with_nan(train))
    known = [value for value in later if value is None or value in train]
    ordinal = {"type": "Ordinal", "columns": ["word"]}
    impute = {"type": "Impute", "columns": ["word"], "strategy": "median"}
    given = transformed([ordinal, impute], {"word": train}, {"word": known})
    assert given.tolist() == pipeline.transform(with_nan(known)).tolist()


@pytest.mark.parametrize("most", [2, 5, 40, 10_000])
def test_max_categories_gives_the_numbers_of_the_one_hot_encoder_ties_and_unknown_included(most: int) -> None:
    train, later = words()
    encoder = make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=None),
        OneHotEncoder(max_categories=most, handle_unknown="infrequent_if_exist", sparse_output=False),
    ).fit(column(train))
    given = transformed([{"type": "OneHot", "max_categories": most}], {"word": train}, {"word": later})
    assert given.tolist() == encoder.transform(column(later)).tolist()


def test_numbers_spread_as_the_one_hot_encoder_spreads_them() -> None:
    grades = (load_wine().data[:, 0] * 2).round() / 2
    train, later = grades[::2], np.append(grades[1::2], [99.5])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[:, None])
    steps = [{"type": "OneHot", "columns": ["alcohol"]}]
    given = transformed(steps, {"alcohol": train.tolist()}, {"alcohol": later.tolist()})
    assert given.tolist() == encoder.transform(later[:, None]).tolist()


def test_words_count_as_the_count_vectorizer_counts_them_with_the_same_rule() -> None:
    lines = [line.strip() for line in load_breast_cancer().DESCR.splitlines() if line.strip()]
    vectorizer = CountVectorizer(token_pattern=r"\w+|[^\w\s]+").fit(lines)
    counts = dict(
        zip(vectorizer.get_feature_names_out(), vectorizer.transform(lines).sum(axis=0).A1, strict=True)
    )
    fit = prepared.fitted(
        [{"type": "Lowercase"}, {"type": "Words", "max_tokens": 42, "min_frequency": 3}],
        {"line": lines},
        text=["line"],
    )
    ranked = sorted((word for word in counts if counts[word] >= 3), key=lambda word: (-counts[word], word))
    assert len(ranked) > 40
    index_of = {word: place for place, word in enumerate(ranked[:40], 2)}
    (indices_NT,) = apply(fit, {"input": ["line"]}, {"line": np.array(lines, dtype=object)})
    split = vectorizer.build_analyzer()
    for line, indices_T in zip(lines, indices_NT.tolist(), strict=True):
        expected = [index_of.get(word, 1) for word in split(line)]
        assert indices_T == expected + [0] * (256 - len(expected))


def learned(folder: Path, cells: Cells, text: list[str], steps: list[dict[str, Any]]) -> list[FittedColumn]:
    """What a job learns from a file of the cells, of which the last tenth is the split `val`."""
    rows = len(cells["y"])
    manifest = prepared.manifest_of({name: cells[name][: rows * 9 // 10] for name in cells}, text)
    manifest.splits.update(train=rows * 9 // 10, val=rows - rows * 9 // 10)
    inputs = {name: [name] for name in cells if name != "y"}
    components = prepared.resolved(steps, manifest, inputs).components
    table = pa.table({name: pa.array(column) for name, column in cells.items()})
    with pa.ipc.new_file(str(folder / "data.arrow"), table.schema) as writer:
        writer.write_table(table)
    targets = Targets("regression", "y", inputs, None)
    source = Source(folder / "data.arrow", manifest, targets, Split(), components, None, None, folder, 1)
    return open_rows(source).prepared


def test_nothing_is_learned_from_the_rows_that_validate(tmp_path: Path) -> None:
    steps = [
        {"type": "Impute", "columns": ["a"], "strategy": "median"},
        {"type": "Clip", "columns": ["a"], "quantiles": [0.1, 0.9]},
        {"type": "Standardize", "columns": ["a"]},
        {"type": "MinMax", "columns": ["b"]},
        {"type": "Ordinal", "columns": ["c"]},
        {"type": "OneHot", "columns": ["d"], "max_categories": 3},
        {"type": "Words", "columns": ["e"]},
    ]

    def cells(changed: slice) -> dict[str, list[Any]]:
        drawn = np.random.default_rng(0)
        columns: dict[str, list[Any]] = {
            "a": drawn.normal(size=100).tolist(),
            "b": drawn.normal(size=100).tolist(),
            "c": [f"c{value}" for value in drawn.integers(0, 9, 100)],
            "d": [f"d{value}" for value in drawn.integers(0, 9, 100)],
            "e": [f"text {value}" for value in drawn.integers(0, 9, 100)],
            "y": drawn.normal(size=100).tolist(),
        }
        for name, value in {"a": 1e6, "b": -1e6, "c": "new", "d": "d8", "e": "other words"}.items():
            columns[name][changed] = [value] * len(columns[name][changed])
        return columns

    before = learned(tmp_path, cells(slice(0)), ["e"], steps)
    assert learned(tmp_path, cells(slice(90, 100)), ["e"], steps) == before
    after = learned(tmp_path, cells(slice(30, 90)), ["e"], steps)
    assert all(old != new for old, new in zip(before, after, strict=True))
