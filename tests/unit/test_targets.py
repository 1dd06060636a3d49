"""What a job learns from what, by the rules of the wire: the loss first, then the target."""

from typing import Any

import pytest

from core.data.manifest import ColumnStats, Kind, Manifest
from core.data.targets import INPUT, Targets, resolve_targets
from modelyard.specs import Feature, JobSpec, ProblemError
from tests import manifests


def job(**fields: Any) -> JobSpec:
    return JobSpec(name="m", dataset="d", model={"type": "Linear"}, **fields)


def table(columns: dict[str, tuple[str, ColumnStats]]) -> Manifest:
    return Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": 100},
        features={name: Feature(dtype, []) for name, (dtype, _) in columns.items()},
        data_sha256="0" * 64,
        data_bytes=1,
        columns={name: stats for name, (_, stats) in columns.items()},
    )


def one_column(dtype: str, values: list[tuple[Any, int]] | None, missing: int = 0) -> Manifest:
    """An input `x` and a last column `t` of a dtype with these values."""
    return table(
        {
            "x": ("float64", ColumnStats(count=100)),
            "t": (dtype, ColumnStats(count=100, missing=missing, values=values)),
        }
    )


def resolved(spec: JobSpec, manifest: Manifest) -> Targets:
    errors: list[ProblemError] = []
    targets = resolve_targets(spec, manifest, errors, [])
    assert errors == []
    assert targets is not None
    return targets


def refused(spec: JobSpec, manifest: Manifest) -> list[tuple[str, str]]:
    errors: list[ProblemError] = []
    assert resolve_targets(spec, manifest, errors, []) is None
    return [(error.pointer, error.code) for error in errors]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["label", "target", "z"], "label"),
        (["target", "a", "z"], "target"),
        (["a", "b", "z"], "z"),
    ],
)
def test_the_target_is_label_then_target_then_the_last_column(names: list[str], expected: str) -> None:
    manifest = table({name: ("float64", ColumnStats(count=100)) for name in names})
    targets = resolved(job(), manifest)
    assert targets.target == expected
    assert targets.inputs == {INPUT: [name for name in names if name != expected]}


@pytest.mark.parametrize(
    ("dtype", "values", "task", "classes"),
    [
        ("string", [("ash", 60), ("oak", 40)], "classification", ["ash", "oak"]),
        ("bool", [(False, 60), (True, 40)], "classification", ["false", "true"]),
        ("float64", [(0.0, 60), (1.0, 40)], "regression", None),
        ("int64", [(number, 2) for number in range(20)], "classification", [str(n) for n in range(20)]),
        ("int64", [(number, 2) for number in range(21)], "regression", None),
        ("int64", [(2, 97), (10, 2), (30, 1)], "regression", None),
        ("int64", None, "regression", None),
    ],
)
def test_the_task_follows_from_the_target_column(
    dtype: str, values: list[tuple[Any, int]] | None, task: str, classes: list[str] | None
) -> None:
    targets = resolved(job(), one_column(dtype, values))
    assert (targets.task, targets.classes) == (task, classes)


def test_an_integer_column_taken_as_labels_is_told_in_a_warning() -> None:
    warnings: list[str] = []
    resolve_targets(job(), one_column("int64", [(2, 50), (10, 50)]), [], warnings)
    assert [warning.split(" ")[0] for warning in warnings] == ["'t'"]


@pytest.mark.parametrize(
    "fields", [{"task": "regression"}, {"loss": {"type": "MSELoss"}}], ids=["the task", "the loss"]
)
def test_an_integer_column_is_a_quantity_where_the_spec_says_so(fields: dict[str, Any]) -> None:
    targets = resolved(job(**fields), one_column("int64", [(2, 50), (10, 50)]))
    assert (targets.task, targets.classes) == ("regression", None)


def test_an_integer_column_of_many_values_is_labels_where_the_loss_says_so() -> None:
    values = [(number, 4) for number in range(25)]
    targets = resolved(job(loss={"type": "CrossEntropyLoss"}), one_column("int64", values))
    assert targets.task == "classification"
    assert targets.classes == [str(number) for number in range(25)]


def test_images_are_classified_into_the_classes_that_ingest_found() -> None:
    targets = resolved(job(), manifests.images(classes=["cat", "dog"]))
    assert targets == Targets("classification", "label", {"image": ["image"]}, ["cat", "dog"])


def test_arrays_are_classified_with_classes_and_regressed_without() -> None:
    assert resolved(job(), manifests.arrays([4], classes=["3", "7"])).classes == ["3", "7"]
    assert resolved(job(), manifests.arrays([4])) == Targets("regression", "y", {"x": ["x"]}, None)


def test_the_inputs_keep_the_order_of_the_spec() -> None:
    targets = resolved(job(inputs=["city", "age"]), manifests.table())
    assert targets.inputs == {INPUT: ["city", "age"]}


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({"target": "price"}, [("/target", "unknown_column")]),
        (
            {"inputs": ["price", "target", "age", "age"]},
            [
                ("/inputs/0", "unknown_column"),
                ("/inputs/1", "target_as_input"),
                ("/inputs/3", "duplicate_column"),
            ],
        ),
        ({"task": "classification", "loss": {"type": "MSELoss"}}, [("/loss/type", "wrong_loss")]),
        ({"task": "regression", "target": "city"}, [("/task", "wrong_task")]),
        ({"task": "classification"}, [("/target", "too_many_classes")]),
    ],
)
def test_what_cannot_be_learned_from_a_table_is_refused_with_pointers(
    fields: dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    assert refused(job(**fields), manifests.table()) == problems


def test_labels_cannot_be_regressed() -> None:
    assert refused(job(task="regression"), manifests.images()) == [("/task", "wrong_task")]


def test_floats_cannot_be_classified() -> None:
    manifest = one_column("float64", [(0.5, 50), (1.5, 50)])
    assert refused(job(task="classification"), manifest) == [("/task", "wrong_task")]


def test_one_class_is_nothing_to_tell_apart() -> None:
    assert refused(job(), one_column("string", [("oak", 100)])) == [("/target", "one_class")]


@pytest.mark.parametrize("dtype", ["string", "float64", "bool"])
def test_rows_without_a_target_are_refused_before_they_reach_a_worker(dtype: str) -> None:
    manifest = one_column(dtype, [("ash", 60), ("oak", 38)], missing=2)
    assert refused(job(), manifest) == [("/target", "missing_targets")]


def test_the_only_column_leaves_nothing_to_learn_from() -> None:
    manifest = table({"t": ("float64", ColumnStats(count=100))})
    assert refused(job(), manifest) == [("/inputs", "no_inputs")]


def test_a_job_on_images_takes_one_input() -> None:
    manifest = manifests.images()
    manifest.features["other"] = Feature("uint8", [1, 28, 28])
    assert refused(job(inputs=["image", "other"]), manifest) == [("/inputs", "too_many_inputs")]


def test_an_unknown_column_is_answered_with_those_there_are() -> None:
    errors: list[ProblemError] = []
    resolve_targets(job(target="Age"), manifests.table(), errors, [])
    assert all(repr(name) in errors[0].message for name in ("age", "height", "city", "target"))
