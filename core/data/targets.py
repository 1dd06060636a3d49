"""What a job learns from what: task, target, inputs and classes, from the spec and the manifest."""

from dataclasses import dataclass
from typing import Any, Literal

from core.data.manifest import MAX_LISTED_VALUES, ColumnStats, Kind, Manifest
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Task

#: An integer column of a table with so few distinct values, each seen at least twice, is a class label.
MAX_INTEGER_CLASSES = 20
MIN_ROWS_PER_INTEGER_CLASS = 2

LOSS_TASKS: dict[str, Task] = {"CrossEntropyLoss": "classification", "MSELoss": "regression"}

#: How a column of a table reaches the net.
ColumnKind = Literal["number", "bool", "string"]


@dataclass(frozen=True)
class Targets:
    """`classes` are the labels in the order of the net's outputs; None for a regression."""

    task: Task
    target: str
    inputs: list[str]
    classes: list[str] | None


def column_kind(dtype: str) -> ColumnKind:
    match dtype:
        case "string":
            return "string"
        case "bool":
            return "bool"
        case _:
            return "number"


def label_of(value: Any) -> str:
    """The class name of a table's value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolve_targets(
    spec: JobSpec, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> Targets | None:
    """None where something is wrong; then `errors` says what."""
    names = list(manifest.features)
    target = _resolve_target(spec.target, names, errors)
    if target is None:
        return None
    inputs = _resolve_inputs(spec.inputs, target, names, errors)
    if inputs is None:
        return None
    if manifest.kind is not Kind.TABLE and len(inputs) != 1:
        errors.append(ProblemError("/inputs", "too_many_inputs", f"expected one input, got {inputs}"))
        return None
    stats = manifest.columns.get(target)
    if stats is not None and stats.missing:
        message = f"{target!r} is missing in {stats.missing} training rows: leave those rows out"
        errors.append(ProblemError("/target", "missing_targets", message))
        return None
    task = _resolve_task(spec, target, manifest, errors, warnings)
    if task is None:
        return None
    if task == "regression":
        if _is_labelled(target, manifest) or manifest.features[target].dtype == "string":
            errors.append(
                ProblemError(
                    "/task", "wrong_task", f"{target!r} holds class labels: regression needs numbers"
                )
            )
            return None
        return Targets(task, target, inputs, None)
    classes = _classes(target, manifest, errors)
    return Targets(task, target, inputs, classes) if classes is not None else None


def _resolve_target(asked: str | None, names: list[str], errors: list[ProblemError]) -> str | None:
    if asked is None:
        return next((name for name in ("label", "target") if name in names), names[-1])
    if asked in names:
        return asked
    errors.append(
        ProblemError(
            "/target", "unknown_column", f"the dataset has no column {asked!r}; it has {_list(names)}"
        )
    )
    return None


def _resolve_inputs(
    asked: list[str] | None, target: str, names: list[str], errors: list[ProblemError]
) -> list[str] | None:
    if asked is None:
        inputs = [name for name in names if name != target]
        if not inputs:
            errors.append(
                ProblemError("/inputs", "no_inputs", f"{target!r} is the only column: nothing to learn from")
            )
        return inputs or None
    before = len(errors)
    for position, name in enumerate(asked):
        pointer = f"/inputs/{position}"
        if name not in names:
            message = f"the dataset has no column {name!r}; it has {_list(names)}"
            errors.append(ProblemError(pointer, "unknown_column", message))
        elif name == target:
            errors.append(ProblemError(pointer, "target_as_input", f"{name!r} is the target"))
        elif name in asked[:position]:
            errors.append(ProblemError(pointer, "duplicate_column", f"{name!r} is named twice"))
    return asked if len(errors) == before else None


def _resolve_task(
    spec: JobSpec, target: str, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> Task | None:
    loss_task = LOSS_TASKS.get(str((spec.loss or {}).get("type")))
    if spec.task is not None:
        if loss_task is not None and loss_task != spec.task:
            loss_type = (spec.loss or {})["type"]
            message = f"{loss_type} is a loss for {loss_task}, the task is {spec.task}"
            errors.append(ProblemError("/loss/type", "wrong_loss", message))
            return None
        return spec.task
    if loss_task is not None:
        return loss_task
    if _is_labelled(target, manifest):
        return "classification"
    match column_kind(manifest.features[target].dtype):
        case "string" | "bool":
            return "classification"
        case "number":
            if _looks_like_labels(manifest, target):
                warnings.append(
                    f"{target!r} is an integer column with few values and was taken as class labels; "
                    'say "task": "regression" if it is a quantity'
                )
                return "classification"
            return "regression"


def _is_labelled(target: str, manifest: Manifest) -> bool:
    """Whether ingest made the column indices into the manifest's classes."""
    return manifest.classes is not None and target in ("label", "y") and manifest.kind is not Kind.TABLE


def _looks_like_labels(manifest: Manifest, target: str) -> bool:
    stats = manifest.columns.get(target)
    if manifest.features[target].dtype != "int64" or stats is None or stats.values is None:
        return False
    return len(stats.values) <= MAX_INTEGER_CLASSES and all(
        count >= MIN_ROWS_PER_INTEGER_CLASS for _, count in stats.values
    )


def _classes(target: str, manifest: Manifest, errors: list[ProblemError]) -> list[str] | None:
    if _is_labelled(target, manifest):
        classes = manifest.classes
    else:
        classes = _listed_classes(target, manifest.columns.get(target), errors)
    if classes is not None and len(classes) < 2:
        message = f"expected at least two classes in {target!r}, got {classes}"
        errors.append(ProblemError("/target", "one_class", message))
        return None
    return classes


def _listed_classes(target: str, stats: ColumnStats | None, errors: list[ProblemError]) -> list[str] | None:
    if stats is None or stats.values is None:
        message = f"{target!r} has more than {MAX_LISTED_VALUES} distinct values: too many for classes"
        errors.append(ProblemError("/target", "too_many_classes", message))
        return None
    if any(isinstance(value, float) for value, _ in stats.values):
        message = (
            f'{target!r} holds floats; say "task": "regression", or store the labels as integers or strings'
        )
        errors.append(ProblemError("/task", "wrong_task", message))
        return None
    return [label_of(value) for value, _ in stats.values]


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown}, … ({len(names)} columns)"
