"""What a job learns from what: task, targets, inputs and classes, from the spec and the manifest."""

from dataclasses import dataclass, field
from typing import Literal

from core.data.manifest import MAX_LISTED_VALUES, ColumnStats, Kind, Manifest
from core.data.target_transforms import (
    TargetTransform,
    bin_classes,
    binning,
    check_maps,
    decode_transforms,
    is_one_hot,
    renamed,
    starts_from_numbers,
    task_of,
)
from core.data.tasks import LOSS_TASKS, PAIR_LOSSES, check_loss_task, check_range
from core.faults import fault, join, show, suggestion
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Task

#: An integer column of a table with so few distinct values, each seen at least twice, is a class label.
MAX_INTEGER_CLASSES = 20
MIN_ROWS_PER_INTEGER_CLASS = 2

#: What the one input of a table is called.
INPUT = "input"

#: How a column of a table reaches the net.
ColumnKind = Literal["number", "bool", "string"]


@dataclass(frozen=True)
class Targets:
    """`target` is one column, several, or None for a loss that compares inputs with each other. `inputs` are
    the columns of each input of the net, by its name. `classes` are the labels in the order of the net's
    outputs: of a classification its classes, of a multilabel task the names of its yes-or-no questions;
    None for a regression."""

    task: Task
    target: str | list[str] | None
    inputs: dict[str, list[str]]
    classes: list[str] | None
    transforms: list[TargetTransform] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The target's columns."""
        return [self.target] if isinstance(self.target, str) else self.target or []

    @property
    def is_one_hot(self) -> bool:
        """Whether the loss sees classes as ones among zeros."""
        return is_one_hot(self.transforms)

    @property
    def columns(self) -> list[str]:
        """All input columns, each once."""
        return list(dict.fromkeys(name for names in self.inputs.values() for name in names))

    @property
    def inputs_in_spec(self) -> list[str] | dict[str, list[str]]:
        """As a spec writes them: a list where the net has one input."""
        return self.columns if list(self.inputs) in ([self.columns[0]], [INPUT]) else self.inputs


def column_kind(dtype: str) -> ColumnKind:
    match dtype:
        case "string":
            return "string"
        case "bool":
            return "bool"
        case _:
            return "number"


def label_of(value: object) -> str:
    """The class name of a table's value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_labelled(column: str, manifest: Manifest) -> bool:
    """Whether ingest made the column indices into the manifest's classes."""
    return manifest.classes is not None and column in ("label", "y") and manifest.kind is not Kind.TABLE


def resolve_targets(
    spec: JobSpec, manifest: Manifest, errors: list[ProblemError], warnings: list[str]
) -> Targets | None:
    """None where something is wrong; then `errors` says what. The components of `target_transform` have
    been checked one by one."""
    target = _resolve_target(spec, manifest, errors)
    transforms = decode_transforms(spec.target_transform, errors)
    if target == []:
        if spec.inputs is not None:
            _resolve_inputs(spec.inputs, [], [], manifest, errors)
        return None
    names = [target] if isinstance(target, str) else target or []
    if manifest.kind is Kind.IMAGES and "image" in names:
        message = '"image" holds the pictures, and the net takes them in; choose another target.'
        fault(errors, "/target", "wrong_kind", message)
        return None
    inputs = _resolve_inputs(spec.inputs, names, beside(spec), manifest, errors)
    if inputs is None or transforms is None or not _has_all_values(names, manifest, errors):
        return None
    if target is None:
        return Targets("regression", None, inputs, None)
    task = _resolve_task(spec, names, transforms, manifest, errors, warnings)
    if task is None:
        return None
    before = len(errors)
    classes = None
    match task:
        case "classification":
            classes = _resolve_classes(names, transforms, manifest, errors)
        case "multilabel":
            classes = _resolve_labels(spec, names, manifest, errors)
        case "regression":
            pointer = "/task" if spec.task else "/loss" if spec.loss else "/target"
            _check_numbers(names, transforms, manifest, errors, pointer)
            check_range(str((spec.loss or {}).get("type")), names, transforms, manifest, errors)
    return Targets(task, target, inputs, classes, transforms) if len(errors) == before else None


def _resolve_target(spec: JobSpec, manifest: Manifest, errors: list[ProblemError]) -> str | list[str] | None:
    """An empty list where something is wrong."""
    names, asked = list(manifest.features), spec.target
    loss_type = str((spec.loss or {}).get("type"))
    if loss_type in PAIR_LOSSES and not PAIR_LOSSES[loss_type].has_target:
        if asked is None:
            return None
        message = f"{loss_type} compares inputs with each other and takes no target; leave the target out."
        fault(errors, "/target", "no_target", message)
        return []
    if asked is None:
        return next((name for name in ("label", "target") if name in names), names[-1])
    if isinstance(asked, str):
        return asked if _is_column(asked, names, "/target", errors) else []
    known = [_is_column(name, names, join("/target", place), errors) for place, name in enumerate(asked)]
    for place, name in enumerate(asked):
        if name in asked[:place]:
            fault(errors, join("/target", place), "duplicate_column", f"{show(name)} is named twice.")
            return []
    return asked if all(known) else []


def _is_column(name: str, names: list[str], pointer: str, errors: list[ProblemError]) -> bool:
    if name in names:
        return True
    message = f"The dataset has no column {show(name)}.{suggestion(name, names)} It has {listed(names)}."
    fault(errors, pointer, "unknown_column", message)
    return False


def _resolve_inputs(
    asked: list[str] | dict[str, list[str]] | None,
    targets: list[str],
    beside: list[str],
    manifest: Manifest,
    errors: list[ProblemError],
) -> dict[str, list[str]] | None:
    if asked is None:
        found = _default_inputs([*targets, *beside], manifest)
        if not found:
            message = f"The dataset has {listed(targets)} and nothing to learn from; add columns to it."
            fault(errors, "/inputs", "no_inputs", message)
        return found or None
    before = len(errors)
    if isinstance(asked, dict):
        for name, columns in asked.items():
            _check_inputs(columns, targets, manifest, join("/inputs", name), errors)
        groups = asked
    else:
        _check_inputs(asked, targets, manifest, "/inputs", errors)
        is_text = len(asked) == 1 and asked[0] in manifest.text_columns
        groups = {INPUT: asked} if manifest.kind is Kind.TABLE and not is_text else {asked[0]: asked}
    if manifest.kind is not Kind.TABLE and (len(groups) != 1 or len(next(iter(groups.values()))) != 1):
        message = (
            f"A dataset of {manifest.kind.value} gives one input, a column of its own; {show(asked)} came."
        )
        fault(errors, "/inputs", "too_many_inputs", message)
    return groups if len(errors) == before else None


def beside(spec: JobSpec) -> list[str]:
    """Columns that say how rows are dealt with, not what they hold: no inputs unless they are named."""
    weights = (spec.trainer.sampler or {}).get("weights")
    return [name for name in (spec.split.group, weights) if isinstance(name, str)]


def _default_inputs(targets: list[str], manifest: Manifest) -> dict[str, list[str]]:
    """Texts reach the net one by one, the columns of a table together."""
    columns = [name for name in manifest.features if name not in targets]
    texts = [name for name in columns if name in manifest.text_columns]
    if manifest.kind is not Kind.TABLE:
        return {columns[0]: [columns[0]]} if columns else {}
    if texts:
        return {name: [name] for name in texts}
    return {INPUT: columns} if columns else {}


def _check_inputs(
    asked: list[str], targets: list[str], manifest: Manifest, pointer: str, errors: list[ProblemError]
) -> None:
    for place, name in enumerate(asked):
        here = join(pointer, place)
        if not _is_column(name, list(manifest.features), here, errors):
            continue
        if name in targets:
            fault(errors, here, "target_as_input", f"{show(name)} is the target; leave it out of the inputs.")
        elif name in asked[:place]:
            fault(errors, here, "duplicate_column", f"{show(name)} is named twice; take one out.")


def _has_all_values(names: list[str], manifest: Manifest, errors: list[ProblemError]) -> bool:
    missing = {name: manifest.columns[name].missing for name in names if name in manifest.columns}
    for name, count in missing.items():
        if count:
            message = f"{show(name)} is missing in {count} training rows; leave those rows out."
            fault(errors, "/target", "missing_targets", message)
    return not any(missing.values())


def _resolve_task(
    spec: JobSpec,
    names: list[str],
    transforms: list[TargetTransform],
    manifest: Manifest,
    errors: list[ProblemError],
    warnings: list[str],
) -> Task | None:
    """The spec's word, else what the transforms or the loss leave, else what the target looks like."""
    loss_type = str((spec.loss or {}).get("type"))
    loss_tasks = LOSS_TASKS.get(loss_type, ())
    led_to = task_of(transforms)
    task = spec.task or led_to
    if task is None:
        task = loss_tasks[0] if len(loss_tasks) == 1 else None
    if task is None:
        looks: list[str] = []
        inferred = _infer_task(names, manifest, looks)
        task = inferred if not loss_tasks or inferred in loss_tasks else loss_tasks[0]
        warnings += looks if task == inferred else []
    if led_to is not None and led_to != task:
        message = f"The target_transform leads to {led_to}, the task is {task}; change one of them."
        fault(errors, "/target_transform", "wrong_task", message)
        return None
    return task if check_loss_task(loss_type, task, is_one_hot(transforms), errors) else None


def _infer_task(names: list[str], manifest: Manifest, warnings: list[str]) -> Task:
    if len(names) > 1:
        dtypes = {column_kind(manifest.features[name].dtype) for name in names}
        if dtypes == {"bool"}:
            return "multilabel"
        return "regression"
    (name,) = names
    if is_labelled(name, manifest):
        return "classification"
    match column_kind(manifest.features[name].dtype):
        case "string" | "bool":
            return "classification"
        case "number":
            if not _looks_like_labels(manifest, name):
                return "regression"
            warnings.append(
                f"{name!r} is an integer column with few values and was taken as class labels; "
                'say "task": "regression" if it is a quantity'
            )
            return "classification"


def _looks_like_labels(manifest: Manifest, name: str) -> bool:
    stats = manifest.columns.get(name)
    if manifest.features[name].dtype != "int64" or stats is None or stats.values is None:
        return False
    return len(stats.values) <= MAX_INTEGER_CLASSES and all(
        count >= MIN_ROWS_PER_INTEGER_CLASS for _, count in stats.values
    )


def _resolve_classes(
    names: list[str], transforms: list[TargetTransform], manifest: Manifest, errors: list[ProblemError]
) -> list[str] | None:
    if len(names) > 1:
        message = (
            f"A classification has one target; {len(names)} came. Several yes-or-no columns are "
            '"task": "multilabel".'
        )
        fault(errors, "/target", "too_many_targets", message)
        return None
    (name,) = names
    binned = binning(transforms)
    if binned is not None:
        _check_numbers(names, transforms, manifest, errors)
        return bin_classes(binned, binned.edges)
    if is_labelled(name, manifest):
        labels = manifest.classes
    else:
        labels = _listed_labels(name, manifest.columns.get(name), errors)
    if labels is None:
        return None
    check_maps(transforms, labels, errors)
    classes = list(dict.fromkeys(renamed(label, transforms) for label in labels))
    if len(classes) < 2:
        message = f"A classification has at least two classes; {show(name)} has {listed(classes)}."
        fault(errors, "/target", "one_class", message)
        return None
    return classes


def _listed_labels(name: str, stats: ColumnStats | None, errors: list[ProblemError]) -> list[str] | None:
    if stats is None or stats.values is None:
        message = (
            f"{show(name)} has more than {MAX_LISTED_VALUES} distinct values: too many for classes; for a "
            'quantity say "task": "regression", or bin it.'
        )
        fault(errors, "/target", "too_many_classes", message)
        return None
    if any(isinstance(value, float) for value, _ in stats.values):
        message = (
            f'{show(name)} holds floats; say "task": "regression", bin it, or store the labels as integers '
            "or strings."
        )
        fault(errors, "/task", "wrong_task", message)
        return None
    return [label_of(value) for value, _ in stats.values]


def _resolve_labels(
    spec: JobSpec, names: list[str], manifest: Manifest, errors: list[ProblemError]
) -> list[str] | None:
    """The names of yes-or-no columns; of one array column of K values they are 0 to K - 1."""
    takes, other = "A multilabel target is", "task"
    if spec.task is None and spec.loss is not None:  # nobody said multilabel
        takes, other = f"{spec.loss.get('type')} takes a target of", "loss"
    for name in names:
        stats, feature = manifest.columns.get(name), manifest.features[name]
        values = None if stats is None or stats.values is None else {value for value, _ in stats.values}
        is_many = len(names) > 1 and feature.shape
        is_yes_or_no = feature.dtype == "bool" or (values is not None and values <= {0, 1})
        if is_labelled(name, manifest) or is_many or len(feature.shape) > 1 or not is_yes_or_no:
            message = (
                f"{takes} bool or 0 and 1, a column a label or one array [rows, labels]; {show(name)} isn't. "
                f"Mend it, or choose another {other}."
            )
            fault(errors, "/target", "wrong_task", message)
            return None
    if len(names) == 1 and manifest.features[names[0]].shape:
        return [str(place) for place in range(manifest.features[names[0]].shape[0])]
    return names


def _check_numbers(
    names: list[str],
    transforms: list[TargetTransform],
    manifest: Manifest,
    errors: list[ProblemError],
    pointer: str = "/target_transform",
) -> None:
    for name in names:
        feature = manifest.features[name]
        if is_labelled(name, manifest) or feature.dtype == "string":
            is_own = not starts_from_numbers(transforms)
            message = (
                f"{show(name)} holds class labels: {'regression' if is_own else 'target_transform'} needs "
                "numbers; choose another target."
            )
            if pointer == "/loss":
                message += ' For numbers in place of classes say "target_transform": [{"type": "OneHot"}].'
            fault(errors, pointer if is_own else "/target_transform", "wrong_task", message)
        elif feature.shape and (len(names) > 1 or binning(transforms) is not None):
            message = f"{show(name)} holds {feature.shape} values a row, and one is taken; choose another."
            fault(errors, "/target", "wrong_task", message)


def listed(names: list[str]) -> str:
    """The names as an error lists them."""
    shown = ", ".join(repr(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown}, … ({len(names)} columns)"
