"""The metrics that a spec names, as a resolved spec lists them, and what may be monitored."""

import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from core.data.manifest import Manifest
from core.data.targets import Targets
from core.data.tasks import PAIR_LOSSES
from core.faults import fault, first_line, join, show, suggestion
from core.nets import registry
from core.nets.components.metrics import (
    ALIASES,
    BINARY,
    FAMILY,
    MULTICLASS,
    MULTILABEL,
    REGRESSION,
    SQUARE,
)
from core.nets.decode import present
from core.nets.measures import TorchMetric
from core.nets.refusals import REFUSALS
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Component, Task

#: What is measured for a task, without being asked.
NAMES: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "regression": ("r2", "mae"),
    "multilabel": ("accuracy",),
}

_BETTER: dict[str, Literal["min", "max"]] = {"loss": "min", "accuracy": "max", "r2": "max", "mae": "min"}

MAX_METRICS = 50
#: A metric over pairs of classes keeps so many numbers squared.
MAX_SQUARE_CLASSES = 2000
#: Of thresholds and bins.
MAX_STEPS = 10_000

_WIRE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}")
_TRIED_ROWS = 4


def usual_metrics(targets: Targets, loss_type: str) -> tuple[str, ...]:
    """None where the answer is a distance and the target says alike or not: they have no common unit."""
    return () if loss_type in PAIR_LOSSES else NAMES[targets.task]


def check_metrics(
    spec: JobSpec, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> list[str | Component]:
    """The metrics of the job: names of the usual ones, then components, each with its `name`."""
    usual = usual_metrics(targets, str((spec.loss or {}).get("type")))
    num_values = _values_per_answer(targets, manifest)
    found: dict[str, str | Component] = {name: name for name in usual}
    if len(spec.metrics) > MAX_METRICS:
        message = f"A job measures at most {MAX_METRICS} metrics; {len(spec.metrics)} came."
        fault(errors, "/metrics", "too_large", message)
        return list(found.values())
    for place, raw in present(spec.metrics):
        pointer = join("/metrics", place)
        if raw in usual or (isinstance(raw, dict) and set(raw) == {"type"} and _word(raw["type"]) in usual):
            continue
        component = _check_metric(raw, targets, num_values, pointer, errors)
        if component is None:
            continue
        name = metric_name(component)
        if name in found or name == "loss":
            message = (
                f'{show(name)} is measured already; give this one another "name", as in {show(name + "2")}.'
            )
            fault(errors, pointer, "duplicate_metric", message)
            continue
        found[name] = component
    return list(found.values())


def metric_name(metric: str | Component) -> str:
    """val_<name> and test_<name> are what a resolved metric is measured as."""
    return metric if isinstance(metric, str) else str(metric["name"])


def better(metric: str | Component) -> Literal["min", "max"] | None:
    """Which way a metric is better, where it is known: of the usual ones, of `loss`, and of those of
    torchmetrics that say so themselves."""
    if isinstance(metric, str):
        return _BETTER.get(metric)
    entry = registry.get("metric", metric["type"])
    is_higher = getattr(entry.make, "higher_is_better", None) if entry is not None else None
    return None if is_higher is None else "max" if is_higher else "min"


def monitored_names(metrics: Iterable[str | Component]) -> list[str]:
    """What each epoch's end measures."""
    return ["train_loss", "val_loss", *(f"val_{metric_name(metric)}" for metric in metrics)]


def types_of(task: Task, *, is_binary: bool = False) -> dict[str, str]:
    """The torchmetrics classes of a task by the names that a spec may write: full, without the prefix,
    snake case, short."""
    prefix = {"classification": MULTICLASS, "multilabel": MULTILABEL, "regression": ""}[task]
    listed = registry.names("metric")
    found = {}
    for full in listed:
        if full in REGRESSION or not prefix:
            if task != "regression" or full not in REGRESSION:
                continue
        elif is_binary and full.startswith(BINARY):
            found[full] = full
            continue
        elif not full.startswith(prefix):
            continue
        short = full.removeprefix(prefix)
        found |= {full: full, short: full, _snake(short): full}
    return found | {word: found[short] for word, (short, _) in ALIASES.items() if short in found}


def known_words() -> set[str]:
    """All that some task's metric may be called."""
    tasks: tuple[Task, ...] = ("classification", "multilabel", "regression")
    binary = types_of("classification", is_binary=True)
    return {word for task in tasks for word in (*NAMES[task], *types_of(task))} | set(binary)


def _values_per_answer(targets: Targets, manifest: Manifest) -> int:
    if targets.classes is not None:
        return len(targets.classes)
    return sum(torch.Size(manifest.features[name].shape).numel() for name in targets.names)


def _check_metric(
    raw: str | Component, targets: Targets, num_values: int, pointer: str, errors: list[ProblemError]
) -> Component | None:
    is_binary = targets.task == "classification" and num_values == 2
    types = types_of(targets.task, is_binary=is_binary)
    if not targets.names:
        message = "There is no target to measure against; leave the metrics out, the loss is measured."
        fault(errors, pointer, "no_target", message)
        return None
    given: dict[str, Any] = {"type": raw} if isinstance(raw, str) else dict(raw)
    word = given.get("type")
    if not isinstance(word, str) or word not in types:
        where = pointer if isinstance(raw, str) else join(pointer, "type")
        fault(errors, where, "unknown_metric", _unknown(word, targets.task, types))
        return None
    name = given.get("name") or _word(word)
    if not isinstance(name, str) or not _WIRE_NAME.fullmatch(name):
        message = f'A metric\'s name has a-z, 0-9, "_", "." and "-", at most 50 of them; {show(name)} came.'
        fault(errors, join(pointer, "name"), "invalid_value", message)
        return None
    given |= {"type": types[word], "name": name}
    if word in ALIASES:
        given = given | ALIASES[word][1]
    component = registry.check_component("metric", given, pointer, errors)
    if component is None or not _is_bounded(component, num_values, pointer, errors):
        return None
    if not _fill_sizes(component, targets.task, num_values, pointer, errors):
        return None
    return component if _try(component, targets.task, num_values, pointer, errors) else None


def _unknown(word: object, task: Task, types: dict[str, str]) -> str:
    why = FAMILY.absent.get(str(word)) if isinstance(word, str) else None
    if why is not None:
        return f"The metric {show(word)} is left out: {why}."
    shown = sorted(name for name in types if name.islower())
    near = suggestion(str(word), types)
    return f"There is no metric {show(word)} for {task}.{near} Valid are: {', '.join(shown)}."


def _is_bounded(component: Component, num_values: int, pointer: str, errors: list[ProblemError]) -> bool:
    """Against what would take memory before a row is there."""
    for keyword in ("thresholds", "n_bins"):
        value = component.get(keyword)
        if isinstance(value, int) and value > MAX_STEPS:
            message = f"{component['type']}.{keyword} is at most {MAX_STEPS}; {show(value)} came."
            fault(errors, join(pointer, keyword), "invalid_value", message)
            return False
    if component["type"] in SQUARE and num_values > MAX_SQUARE_CLASSES:
        message = f"{component['type']} takes at most {MAX_SQUARE_CLASSES} classes; there are {num_values}."
        fault(errors, pointer, "too_large", message)
        return False
    return True


def _fill_sizes(
    component: Component, task: Task, num_values: int, pointer: str, errors: list[ProblemError]
) -> bool:
    entry = registry.get("metric", component["type"])
    assert entry is not None
    for keyword in ("num_classes", "num_labels", "num_outputs"):
        if keyword not in entry.parameters:
            continue
        given = component.setdefault(keyword, num_values)
        if given != num_values:
            message = f"{keyword} is {num_values} for this {task}; {show(given)} came. Leave it out."
            fault(errors, join(pointer, keyword), "invalid_value", message)
            return False
    return True


def _try(component: Component, task: Task, num_values: int, pointer: str, errors: list[ProblemError]) -> bool:
    """A few rows through the metric, so that torchmetrics says what it refuses."""
    answers = torch.linspace(0.1, 0.9, _TRIED_ROWS * num_values).reshape(_TRIED_ROWS, num_values)
    if task == "classification":
        truth = torch.arange(_TRIED_ROWS) % num_values
        answers = answers / answers.sum(dim=1, keepdim=True)
    elif task == "multilabel":
        truth = (torch.arange(_TRIED_ROWS * num_values) % 2).reshape(answers.shape)
    else:
        truth = answers.flip(0)
    try:
        metric = TorchMetric(task, component, torch.device("cpu"))
        metric.add(answers, truth)
        metric.compute()
    except (*REFUSALS, TorchMetricsUserError) as error:
        is_lone = task == "multilabel" and num_values == 1
        hint = ' A target of one yes-or-no column is "task": "classification".' if is_lone else ""
        message = f"torchmetrics refuses {component['type']}: {first_line(error)}.{hint}"
        fault(errors, pointer, "invalid_value", message)
        return False
    return True


def _word(type_or_word: object) -> str:
    """What a metric is called where the spec gives it no name."""
    word = str(type_or_word)
    if word in ALIASES or word.islower():
        return word
    for prefix in (MULTICLASS, MULTILABEL):
        word = word.removeprefix(prefix)
    return _snake(word)


def _snake(name: str) -> str:
    """F1Score -> f1_score, AUROC -> auroc, MeanSquaredError -> mean_squared_error."""
    words = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z][a-z]*\d*", name)
    return "_".join(words).lower()
