"""The names and patterns of a spec that can be told wrong before its data or its net are understood.

Where a target or a layer is wrong, what depends on it can't be checked whole; a misspelt transform or a
broken pattern is still told along with it.
"""

from core.faults import fault, join, show, suggestion
from core.nets import registry
from core.nets.decode import present
from core.nets.images import MAX_TRANSFORMS
from core.nets.matching import check_pattern
from core.nets.metrics import known_words
from core.nets.starting import MAX_ENTRIES
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Component


def check_data_words(spec: JobSpec, errors: list[ProblemError]) -> None:
    """Of `transforms` and `metrics`, when no target is known to check them with."""
    _check_list("transform", spec.transforms.train, "/transforms/train", errors)
    if isinstance(spec.transforms.eval, list):
        _check_list("transform", spec.transforms.eval, "/transforms/eval", errors)
    words = known_words()
    for place, metric in present(spec.metrics):
        word = metric.get("type") if isinstance(metric, dict) else metric
        if not isinstance(word, str) or word not in words:
            pointer = join("/metrics", place, *(["type"] if isinstance(metric, dict) else []))
            message = f"No task has a metric {show(word)}.{suggestion(str(word), words)}"
            fault(errors, pointer, "unknown_metric", message)


def check_parameter_words(spec: JobSpec, errors: list[ProblemError]) -> None:
    """Of `initialize`, `freeze` and `unfreeze`, when the net's parameters aren't known."""
    for place, entry in present(spec.initialize[:MAX_ENTRIES]):
        registry.check_component("initializer", entry, join("/initialize", place), errors)
    for place, pattern in present(spec.freeze):
        check_pattern(pattern, join("/freeze", place), errors)
    for place, unfreeze in present(spec.unfreeze):
        check_pattern(unfreeze.match, join("/unfreeze", place, "match"), errors)


def _check_list(family: str, components: list[Component], pointer: str, errors: list[ProblemError]) -> None:
    for place, component in present(components[:MAX_TRANSFORMS]):
        registry.check_component(family, component, join(pointer, place), errors)
