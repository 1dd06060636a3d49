"""Targets as the loss sees them, from Arrow columns; and back to what an answer says."""

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

from core.data.manifest import ColumnStats, Kind, Manifest
from core.data.target_columns import FittedTargets, check_quantiles, fit_targets, read_targets
from core.data.targets import Targets, resolve_targets
from core.errors import Invalid
from core.nets.readout import Readout, read_out, restored
from modelyard.specs import Feature, JobSpec, ProblemError

QUANTITIES = np.random.default_rng(3).gamma(2.0, 3.0, 40)
TRAINING = np.arange(0, 40, 2)
#: Defaults as the registry fills them in.
BIN = {"type": "Bin", "edges": None, "quantiles": None, "labels": None}


def manifest_of(columns: dict[str, Any], kind: Kind = Kind.TABLE, **fields: Any) -> Manifest:
    """As ingest writes it, all rows in train."""
    stats, features = {}, {}
    for name, values in columns.items():
        array = np.array(values)
        dtype = {"f": "float64", "i": "int64", "b": "bool", "U": "string"}[array.dtype.kind]
        features[name] = Feature(dtype, list(array.shape[1:]))
        distinct, counts = np.unique(array, return_counts=True)
        numbers = {} if dtype == "string" else {"min": float(array.min()), "max": float(array.max())}
        listed = list(zip(distinct.tolist(), counts.tolist(), strict=True))
        stats[name] = ColumnStats(count=len(array), values=listed, **numbers)
    return Manifest(
        format="table",
        kind=kind,
        splits={"train": len(next(iter(columns.values())))},
        features=features,
        data_sha256="0" * 64,
        data_bytes=1,
        columns=stats,
        **fields,
    )


def table_of(columns: dict[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        array = np.array(values)
        flat = pa.array(array.reshape(-1))
        many = array.ndim > 1
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, array[0].size) if many else flat
    return pa.table(arrays)


def targets_of(manifest: Manifest, **fields: Any) -> Targets:
    errors: list[ProblemError] = []
    spec = JobSpec(name="m", dataset="d", model={"type": "Linear"}, **fields)
    targets = resolve_targets(spec, manifest, errors, [])
    assert targets is not None, errors
    return targets


def fitted(columns: dict[str, Any], **fields: Any) -> FittedTargets:
    columns = {"x": [0.5] * len(next(iter(columns.values())))} | columns
    manifest = manifest_of(columns)
    targets = targets_of(manifest, **fields)
    return fit_targets(read_targets(table_of(columns), manifest, targets), targets, TRAINING)


def refusals(columns: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    errors: list[ProblemError] = []
    spec = JobSpec(name="m", dataset="d", model={"type": "Linear"}, **fields)
    manifest = manifest_of({"x": [0.5] * len(next(iter(columns.values())))} | columns)
    assert resolve_targets(spec, manifest, errors, []) is None
    return [(error.pointer, error.code) for error in errors]


def test_labels_that_are_mapped_are_one_class_in_the_place_of_the_first() -> None:
    animals = ["cow", "cat", "hen", "dog", "cat"] * 8
    found = fitted(
        {"y": animals},
        target_transform=[
            {"type": "Map", "labels": ["cat", "dog"], "to": "pet"},
            {"type": "Map", "labels": ["cow"], "to": "cattle"},
        ],
    )
    assert found.classes == ["pet", "cattle", "hen"]
    assert found.values[:5].tolist() == [1, 0, 2, 0, 0]


def test_numbers_are_labels_where_they_are_mapped() -> None:
    merged = [{"type": "Map", "labels": ["3", "4"], "to": "high"}]
    found = fitted({"y": [1, 2, 3, 4] * 10}, target_transform=merged)
    assert found.classes == ["1", "2", "high"]
    assert found.values[:4].tolist() == [0, 1, 2, 2]


def test_images_and_arrays_with_classes_are_mapped_by_their_names() -> None:
    columns = {"x": [[0.0, 1.0]] * 4, "y": [0, 1, 2, 1]}
    manifest = manifest_of(columns, Kind.ARRAYS, classes=["cat", "cow", "dog"])
    targets = targets_of(manifest, target_transform=[{"type": "Map", "labels": ["cat", "dog"], "to": "pet"}])
    assert targets.classes == ["pet", "cow"]
    assert read_targets(table_of(columns), manifest, targets).tolist() == [0, 1, 0, 1]


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    found = fitted({"y": [1.0, 2.0, 2.5, 7.0] * 10}, target_transform=[BIN | {"edges": [2.0, 7.0]}])
    assert found.classes == ["(-inf, 2)", "[2, 7)", "[7, inf)"]
    assert found.values[:4].tolist() == [0, 1, 1, 2]


def test_quantile_bins_are_scikit_learns_over_the_training_rows() -> None:
    found = fitted({"y": QUANTITIES}, target_transform=[BIN | {"quantiles": 4}])
    bins = KBinsDiscretizer(4, encode="ordinal", strategy="quantile", quantile_method="linear")
    bins.fit(QUANTITIES[TRAINING, None])
    expected = bins.transform(QUANTITIES[:, None])[:, 0]
    assert found.values.tolist() == expected.tolist()
    assert found.classes is not None
    assert found.classes[0] == f"(-inf, {bins.bin_edges_[0][1]:g})"
    assert np.bincount(found.values[TRAINING]).tolist() == [5, 5, 5, 5]


def test_quantiles_that_fall_on_one_value_are_refused() -> None:
    with pytest.raises(Invalid, match="fewer quantiles"):
        fitted({"y": [0.0] * 30 + [1.5] * 10}, target_transform=[BIN | {"quantiles": 4}])


def quantile_faults(values: list[float], quantiles: int, rows: int) -> list[tuple[str, str]]:
    manifest, errors = manifest_of({"x": [0.5] * len(values), "y": values}), list[ProblemError]()
    targets = targets_of(manifest, target_transform=[BIN | {"quantiles": quantiles}])
    check_quantiles(targets, manifest, rows, errors)
    return [(error.pointer, error.code) for error in errors]


@given(
    st.lists(st.integers(0, 6).map(float), min_size=2, max_size=40),
    st.integers(2, 8),
    st.floats(0.3, 1.0),
    st.randoms(use_true_random=False),
)
def test_a_plan_refuses_just_the_quantiles_that_no_choice_of_training_rows_can_tell_apart(
    values: list[float], quantiles: int, part: float, chance: Random
) -> None:
    rows = max(quantiles, round(len(values) * part))
    assume(rows <= len(values))
    edges = np.quantile(chance.sample(values, rows), np.arange(1, quantiles) / quantiles)
    is_apart = (np.diff(edges) > 1e-9).all() and edges[0] > min(values) + 1e-9
    faults = quantile_faults(values, quantiles, rows)
    if is_apart:
        assert faults == []
    elif rows == len(values):
        assert faults == [("/target_transform/0/quantiles", "empty_class")]


def test_more_quantiles_than_training_rows_are_refused_in_the_plan() -> None:
    assert quantile_faults([1.0, 2.0, 3.0], 4, 3) == [("/target_transform/0/quantiles", "empty_class")]
    assert quantile_faults([1.0, 2.0, 3.0, 4.0], 4, 4) == []


@pytest.mark.parametrize("columns", [1, 2])
def test_a_standardised_target_is_scikit_learns_and_comes_back(columns: int) -> None:
    names = ["a", "b"][:columns]
    values = np.stack([QUANTITIES * (k + 1) * 1e4 for k in range(columns)], axis=1)
    found = fitted(
        {name: values[:, k] for k, name in enumerate(names)},
        target=names if columns > 1 else names[0],
        inputs=["x"],
        target_transform=[{"type": "Standardize"}],
    )
    scaler = StandardScaler().fit(values[TRAINING])
    expected = scaler.transform(values)
    np.testing.assert_allclose(found.values.reshape(40, columns), expected, rtol=1e-5, atol=1e-6)
    assert found.scaling is not None
    back = restored(found.scaling, torch.from_numpy(found.values)).numpy()
    np.testing.assert_allclose(back.reshape(40, columns), values, rtol=1e-6)


def test_logarithms_are_taken_before_the_scale_and_given_back_after_it() -> None:
    found = fitted({"y": QUANTITIES}, target_transform=[{"type": "Log1p"}, {"type": "Standardize"}])
    logged = np.log1p(QUANTITIES)
    expected = (logged - logged[TRAINING].mean()) / logged[TRAINING].std()
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)
    assert found.scaling is not None
    answers = read_out(Readout("none", scaling=found.scaling), torch.from_numpy(found.values)[:, None])
    np.testing.assert_allclose(answers.numpy()[:, 0], QUANTITIES, rtol=1e-5)


def test_a_constant_target_is_only_centred() -> None:
    found = fitted({"y": [3.0] * 40}, target_transform=[{"type": "Standardize"}])
    assert found.values.tolist() == [0.0] * 40


def test_several_columns_stand_side_by_side() -> None:
    found = fitted({"a": [1.0] * 40, "b": [2.0] * 40}, target=["b", "a"], inputs=["x"])
    assert found.values.shape == (40, 2)
    assert found.values.dtype == np.float32
    assert found.values[0].tolist() == [2.0, 1.0]


def test_yes_or_no_columns_are_a_multilabel_task() -> None:
    columns = {"wet": [True, False] * 20, "hot": [True, True] * 20}
    manifest = manifest_of({"x": [0.5] * 40} | columns)
    targets = targets_of(manifest, target=["wet", "hot"], inputs=["x"])
    assert (targets.task, targets.classes) == ("multilabel", ["wet", "hot"])
    found = fitted(columns, target=["wet", "hot"], inputs=["x"])
    assert found.values[:2].tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_an_array_of_zeros_and_ones_is_multilabel_where_the_loss_says_so() -> None:
    columns = {"x": [[0.0]] * 4, "y": [[0.0, 1.0, 1.0]] * 4}
    manifest = manifest_of(columns, Kind.ARRAYS)
    targets = targets_of(manifest, loss={"type": "BCEWithLogitsLoss"})
    assert (targets.task, targets.classes) == ("multilabel", ["0", "1", "2"])
    assert read_targets(table_of(columns), manifest, targets).tolist() == [[0.0, 1.0, 1.0]] * 4
    assert targets_of(manifest).task == "regression"


def test_one_hot_leaves_class_indices_for_samplers_and_metrics() -> None:
    found = fitted({"y": ["a", "b"] * 20}, loss={"type": "MSELoss"}, target_transform=[{"type": "OneHot"}])
    assert found.values.dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "fields", "problems"),
    [
        (
            {"y": ["a", "b"] * 20},
            {"target_transform": [BIN | {"edges": [1.0]}]},
            [("/target_transform", "wrong_task")],
        ),
        (
            {"y": ["a", "b"] * 20},
            {"target_transform": [{"type": "Map", "labels": ["c"], "to": "d"}]},
            [("/target_transform/0/labels/0", "unknown_label")],
        ),
        ({"y": QUANTITIES}, {"target_transform": [BIN]}, [("/target_transform/0", "invalid_value")]),
        (
            {"y": QUANTITIES},
            {"target_transform": [BIN | {"edges": [2.0, 1.0]}]},
            [("/target_transform/0/edges", "invalid_value")],
        ),
        (
            {"y": QUANTITIES},
            {"target_transform": [BIN | {"edges": [2.0], "labels": ["low"]}]},
            [("/target_transform/0/labels", "invalid_value")],
        ),
        (
            {"y": QUANTITIES},
            {"target_transform": [{"type": "OneHot"}, BIN | {"quantiles": 2}]},
            [("/target_transform/1", "wrong_order")],
        ),
        (
            {"y": QUANTITIES},
            {"target_transform": [{"type": "Standardize"}, {"type": "Log1p"}]},
            [("/target_transform/1", "wrong_order")],
        ),
        (
            {"y": QUANTITIES - 50},
            {"target_transform": [{"type": "Log1p"}]},
            [("/target_transform", "invalid_value")],
        ),
        (
            {"y": QUANTITIES},
            {"task": "classification", "target_transform": [{"type": "Standardize"}]},
            [("/target_transform", "wrong_task")],
        ),
        (
            {"y": ["a", "b"] * 20},
            {"loss": {"type": "NLLLoss"}, "target_transform": [{"type": "OneHot"}]},
            [("/loss/type", "wrong_loss")],
        ),
        ({"y": QUANTITIES - 50}, {"loss": {"type": "PoissonNLLLoss"}}, [("/target", "invalid_value")]),
        ({"y": QUANTITIES}, {"loss": {"type": "CosineEmbeddingLoss"}}, [("/target", "invalid_value")]),
        (
            {"y": [1.0, -1.0] * 20},
            {"loss": {"type": "TripletMarginLoss"}, "target": "y"},
            [("/target", "no_target")],
        ),
        (
            {"a": [1, 2] * 20, "b": [1, 2] * 20},
            {"task": "multilabel", "target": ["a", "b"]},
            [("/target", "wrong_task")],
        ),
        (
            {"a": ["u", "v"] * 20, "b": ["u", "v"] * 20},
            {"task": "classification", "target": ["a", "b"]},
            [("/target", "too_many_targets")],
        ),
        (
            {"a": ["u", "v"] * 20, "b": [1.0, 2.0] * 20},
            {"target": ["a", "b", "a", "c"]},
            [("/target/3", "unknown_column"), ("/target/2", "duplicate_column")],
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused_with_its_pointer(
    columns: dict[str, Any], fields: dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    assert refusals(columns, **fields) == problems


def test_a_missing_label_is_refused_with_its_row() -> None:
    manifest = manifest_of({"x": [0.5] * 4, "y": ["a", "b", "a", "b"]})
    table = pa.table({"x": [0.5] * 4, "y": ["a", "b", None, "b"]})
    with pytest.raises(Invalid, match="'y' is missing in row 2"):
        read_targets(table, manifest, targets_of(manifest))


def test_texts_reach_the_net_one_by_one() -> None:
    columns = {"text": ["a b", "c d"] * 4, "title": ["e", "f"] * 4, "label": ["u", "v"] * 4}
    targets = targets_of(manifest_of(columns, text_columns=["text", "title"]))
    assert targets.inputs == {"text": ["text"], "title": ["title"]}
