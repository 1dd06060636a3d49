"""Weights that even out rare and frequent classes, as numbers in the resolved spec."""

from typing import Any

from core.data.manifest import Manifest
from core.data.target_transforms import binning, renamed
from core.data.targets import Targets, is_labelled, label_of
from core.faults import fault, join, show
from core.nets.components.losses import BALANCED
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Component

# C classes, K outputs of a row


def resolve_weights(
    loss: Component, num_outputs: int, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> Component:
    """The loss with numbers in place of `balanced`. Checks that there is one for each of the outputs.

    class_weights: n / (C * n_c), the formula of scikit-learn's compute_class_weight (King and Zeng 2001).
    pos_weight: rows without a label for each row with it (torch's own words for BCEWithLogitsLoss).
    All rows of the training split count, those that are set aside for validation too.
    """
    resolved = dict(loss)
    for keyword in ("class_weights", "pos_weight"):
        value = loss.get(keyword)
        if value == BALANCED:
            resolved[keyword] = _balanced(keyword, targets, manifest, errors)
        elif value is not None and not _are_weights(
            value, num_outputs, f"{loss['type']}.{keyword}", join("/loss", keyword), errors
        ):
            resolved[keyword] = None  # so that the rest of the loss can still be looked at
    return resolved


def training_counts(targets: Targets, manifest: Manifest) -> list[int] | None:
    """Rows of the training split by class; None where the manifest doesn't tell."""
    if targets.classes is None or len(targets.names) != 1:
        return None
    (name,) = targets.names
    counted = _labels_with_counts(name, targets, manifest)
    if counted is None:
        return None
    counts = dict.fromkeys(targets.classes, 0)
    for label, count in counted:
        counts[label] += count
    return list(counts.values())


def _labels_with_counts(name: str, targets: Targets, manifest: Manifest) -> list[tuple[str, int]] | None:
    if is_labelled(name, manifest):
        labels, counts = manifest.classes or [], manifest.class_counts.get("train", [])
        found = list(zip(labels, counts, strict=True)) if len(counts) == len(labels) else None
    else:
        stats = manifest.columns.get(name)
        values = stats.values if stats is not None else None
        binned = binning(targets.transforms)
        if values is None or (binned is not None and binned.edges is None):
            return None
        if binned is not None and targets.classes is not None:
            edges = binned.edges or []
            return [(targets.classes[sum(edge <= value for edge in edges)], n) for value, n in values]
        found = [(label_of(value), count) for value, count in values]
    return None if found is None else [(renamed(label, targets.transforms), count) for label, count in found]


def _balanced(
    keyword: str, targets: Targets, manifest: Manifest, errors: list[ProblemError]
) -> list[float] | None:
    pairs: list[tuple[int, int]] | None
    counts = training_counts(targets, manifest) if targets.task == "classification" else None
    if keyword == "class_weights" or targets.is_one_hot:
        pairs = None if counts is None else [(sum(counts) - count, count) for count in counts]
    elif counts is not None:
        pairs = [(counts[0], counts[1])]
    else:
        pairs = _label_counts(targets, manifest)
    pointer = join("/loss", keyword)
    if pairs is None:
        message = f"The dataset's manifest has no counts to balance by; write {keyword} as a list of numbers."
        fault(errors, pointer, "no_counts", message)
        return None
    without = [name for name, (_, rows) in zip(_names(targets, pairs), pairs, strict=True) if rows == 0]
    if without:
        message = (
            f"{show(without[0])} has no training rows to balance by; write {keyword} as a list of numbers."
        )
        fault(errors, pointer, "no_counts", message)
        return None
    if keyword == "class_weights":
        return [(others + rows) / (len(pairs) * rows) for others, rows in pairs]
    return [others / rows for others, rows in pairs]


def _names(targets: Targets, pairs: list[tuple[int, int]]) -> list[str]:
    return (targets.classes or [])[-len(pairs) :]


def _label_counts(targets: Targets, manifest: Manifest) -> list[tuple[int, int]] | None:
    """(rows without, rows with) each label of a multilabel target."""
    pairs = []
    for name in targets.names:
        stats = manifest.columns.get(name)
        if stats is None or stats.values is None or manifest.features[name].shape:
            return None
        holds = sum(count for value, count in stats.values if value)
        pairs.append((sum(count for _, count in stats.values) - holds, holds))
    return pairs


def _are_weights(
    weights: list[Any], num_outputs: int, name: str, pointer: str, errors: list[ProblemError]
) -> bool:
    before = len(errors)
    if len(weights) != num_outputs:
        message = f"{name} has one number for each of {num_outputs} outputs; {len(weights)} came."
        fault(errors, pointer, "invalid_value", message)
    for place, weight in enumerate(weights):
        if weight < 0:
            message = f"A weight is >= 0; {show(weight)} came."
            fault(errors, join(pointer, place), "invalid_value", message)
    return len(errors) == before
