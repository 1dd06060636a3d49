"""The warnings a good colleague would give about a spec that will run."""

from collections.abc import Iterator
from typing import Any

from core.data.manifest import Kind, Manifest
from core.data.targets import Targets, beside, listed
from core.faults import join
from core.nets.balance import training_counts
from core.nets.components.facts import BATCH_NORMS, LINEAR_BETWEEN, SPOILS_SCORES, WEIGHTED
from core.nets.components.layers import GRAPH, SEQUENTIAL
from modelyard.specs import JobSpec

Component = dict[str, Any]

#: A string of more goes one-hot with a warning, unless that was asked for.
MANY_VALUES = 100

#: They apply the softmax or the sigmoid themselves.
_TAKES_SCORES = frozenset({"CrossEntropyLoss", "BCEWithLogitsLoss", "MultiLabelSoftMarginLoss"})
#: What a net ends with before losses that apply nothing themselves.
_TAKES_PROBABILITIES = {
    "NLLLoss": ("LogSoftmax", "LogSigmoid"),
    "KLDivLoss": ("LogSoftmax", "LogSigmoid"),
    "BCELoss": ("Sigmoid", "Softmax", "Hardsigmoid"),
}


def advise(
    model: Component, loss: Component | None, batch_size: int, targets: Targets, manifest: Manifest
) -> Iterator[str]:
    yield from _last_layer(model, loss)
    yield from _linear_chains(model, "/model")
    yield from _lone_rows(model, batch_size)
    yield from _unseen_classes(targets, manifest)


def advise_rows(
    spec: JobSpec, rows: int, targets: Targets, prepare: list[Component], manifest: Manifest
) -> Iterator[str]:
    """About what reaches the net: `rows` an epoch, and columns made by the resolved `prepare`."""
    if spec.trainer.drop_last and rows < spec.trainer.batch_size:
        yield (
            f"/trainer/drop_last: a batch of {spec.trainer.batch_size} is never full; each epoch trains "
            f"one batch of all {rows} rows, where torch's loader would give none. Lower batch_size."
        )
    if spec.inputs is None and manifest.kind is Kind.TABLE:
        apart = {*targets.columns, *targets.names, *beside(spec)}
        left_out = [name for name in manifest.features if name not in apart]
        if left_out:
            yield (
                f"/inputs: only texts reach the net by default, and {listed(left_out)} beside them don't. "
                "Name the inputs, and take a Graph for several."
            )
    yield from _wide_columns(spec, prepare, manifest)


def _wide_columns(spec: JobSpec, prepare: list[Component], manifest: Manifest) -> Iterator[str]:
    """Strings of many values that nobody asked to spread."""
    asked = [step["columns"] for step in spec.prepare or [] if step["type"] == "OneHot"]
    if "*" in asked:
        return
    spread = [step["columns"] for step in prepare if step["type"] == "OneHot"]
    for columns in (columns for columns in spread if columns not in asked):
        for name in columns:
            count = len(manifest.columns[name].values or [])
            if count > MANY_VALUES:
                yield (
                    f"/prepare: {name!r} becomes {count} features, one a value, since nothing else is said; "
                    "say OneHot with max_categories, or leave the column out of the inputs."
                )


def _last_layer(model: Component, loss: Component | None) -> Iterator[str]:
    last, pointer = _end(model, "/model")
    why = SPOILS_SCORES.get(last["type"])
    if loss is not None and loss["type"] in _TAKES_SCORES and why is not None:
        yield f"{pointer}: {last['type']} before {loss['type']}: {why}. Take the layer out."
    ends = _TAKES_PROBABILITIES.get(loss["type"]) if loss is not None else None
    if ends is not None and last["type"] != GRAPH and last["type"] not in ends:
        kind = "probabilities" if "Sigmoid" in ends else "logarithms of probabilities"
        yield (
            f"{pointer}: {(loss or {})['type']} takes {kind}, and {last['type']} gives any number; "
            f"put a {ends[0]} behind it."
        )


def _end(component: Component, pointer: str) -> tuple[Component, str]:
    """The layer that gives the net's output, as far as that is one."""
    while component["type"] == SEQUENTIAL:
        place = len(component["layers"]) - 1
        component, pointer = component["layers"][place], join(pointer, "layers", place)
    return component, pointer


def _linear_chains(component: Component, pointer: str) -> Iterator[str]:
    before: tuple[Component, str] | None = None
    for layer, here in _chain(component, pointer):
        kind = layer["type"]
        if kind in WEIGHTED:
            if before is not None and before[0]["type"] == kind:
                yield (
                    f"{here}: {kind} follows {kind} at {before[1]} with no activation between; "
                    "two linear maps are one. Put a ReLU between."
                )
            before = (layer, here)
        elif kind not in LINEAR_BETWEEN:
            before = None
        for word in ("layers", "shortcut", "branches"):
            for place, child in enumerate(layer.get(word) or []):
                yield from _linear_chains(child, join(here, word, place))


def _chain(component: Component, pointer: str) -> Iterator[tuple[Component, str]]:
    """What follows one another: the layers of a Sequential, and of those that nest in it."""
    if component["type"] != SEQUENTIAL:
        yield component, pointer
        return
    for place, child in enumerate(component["layers"]):
        yield from _chain(child, join(pointer, "layers", place))


def _lone_rows(model: Component, batch_size: int) -> Iterator[str]:
    if batch_size == 1 and _names_any(model, BATCH_NORMS):
        yield (
            "/trainer/batch_size: batch norm with a batch of 1 normalises each row by itself; "
            "take a larger batch, or GroupNorm."
        )


def _names_any(value: Any, types: frozenset[str]) -> bool:
    if isinstance(value, dict):
        return value.get("type") in types or any(_names_any(child, types) for child in value.values())
    return isinstance(value, list) and any(_names_any(child, types) for child in value)


def _unseen_classes(targets: Targets, manifest: Manifest) -> Iterator[str]:
    counts = training_counts(targets, manifest) if targets.task == "classification" else None
    if counts is None:
        return
    unseen = [name for name, count in zip(targets.classes or [], counts, strict=True) if count == 0]
    if unseen:
        shown = ", ".join(repr(name) for name in unseen[:5]) + (", …" if len(unseen) > 5 else "")
        yield f"{len(unseen)} classes have no training rows ({shown}); the net can't learn them."
