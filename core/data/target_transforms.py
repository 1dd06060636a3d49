"""What `target_transform` in a spec does to the target before the loss sees it. No torch.

Labels may be merged (`Map`) and spread over the outputs (`OneHot`), numbers made into classes (`Bin`) or
rescaled (`Log1p`, `Standardize`). An answer is always in the target's own terms: the classes as they come
out, and numbers in the unit of the column.
"""

from itertools import pairwise
from typing import Literal

import msgspec
from msgspec import Struct

from core.faults import fault, join, show
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Component, Task

MAX_QUANTILES = 1000

#: What a transform takes and gives.
Form = Literal["numbers", "classes", "one-hot"]


class Map(Struct, tag=True, tag_field="type", frozen=True):
    """Gives all of `labels` the name `to`, which merges them into one class, or renames a single one. Labels
    that aren't named stay as they are. Several stand in a list and act in turn."""

    labels: list[str]
    to: str


class OneHot(Struct, tag=True, tag_field="type", frozen=True):
    """The loss sees a class as one 1 among zeros, float32: for losses that compare numbers."""


class Bin(Struct, tag=True, tag_field="type", frozen=True):
    """Numbers into classes: class k holds edges[k-1] <= x < edges[k]. `edges` are given, or `quantiles`
    classes of equally many training rows. `labels` name the classes, else their intervals do."""

    edges: list[float] | None = None
    quantiles: int | None = None
    labels: list[str] | None = None


class Standardize(Struct, tag=True, tag_field="type", frozen=True):
    """(y - mean) / std with the training rows' mean and population standard deviation, column by column; a
    constant column is only centred."""


class Log1p(Struct, tag=True, tag_field="type", frozen=True):
    """log(1 + y): for quantities >= 0 over several orders of magnitude. Stands before Standardize."""


TargetTransform = Map | OneHot | Bin | Standardize | Log1p

TAKES: dict[type[TargetTransform], Form] = {
    Map: "classes",
    OneHot: "classes",
    Bin: "numbers",
    Standardize: "numbers",
    Log1p: "numbers",
}
GIVES: dict[type[TargetTransform], Form] = {**TAKES, Bin: "classes", OneHot: "one-hot"}


def decode_transforms(
    components: list[Component], errors: list[ProblemError]
) -> list[TargetTransform] | None:
    """From components that the registry has checked one by one; here it is checked that they go together.
    None where something is wrong."""
    try:
        transforms = msgspec.convert(components, list[TargetTransform])
    except msgspec.ValidationError:
        return None  # the registry has said why
    before = len(errors)
    for place, transform in enumerate(transforms):
        pointer = join("/target_transform", place)
        if place > 0:
            _check_order(transforms, place, pointer, errors)
        if isinstance(transform, Bin):
            _check_bin(transform, pointer, errors)
    return transforms if len(errors) == before else None


def task_of(transforms: list[TargetTransform]) -> Task | None:
    """The task that the transforms lead to, whatever the column is."""
    if not transforms:
        return None
    return "regression" if GIVES[type(transforms[-1])] == "numbers" else "classification"


def starts_from_numbers(transforms: list[TargetTransform]) -> bool:
    return bool(transforms) and TAKES[type(transforms[0])] == "numbers"


def is_one_hot(transforms: list[TargetTransform]) -> bool:
    return any(isinstance(transform, OneHot) for transform in transforms)


def binning(transforms: list[TargetTransform]) -> Bin | None:
    return next((transform for transform in transforms if isinstance(transform, Bin)), None)


def renamed(label: str, transforms: list[TargetTransform]) -> str:
    """The class of a label after every Map."""
    for transform in transforms:
        if isinstance(transform, Map) and label in transform.labels:
            label = transform.to
    return label


def check_maps(transforms: list[TargetTransform], labels: list[str], errors: list[ProblemError]) -> None:
    """A Map that names a label which isn't there does nothing, and is a slip."""
    present = list(labels)
    for place, transform in enumerate(transforms):
        if not isinstance(transform, Map):
            continue
        for at, label in enumerate(transform.labels):
            if label not in present:
                shown = ", ".join(show(name) for name in present[:20]) + (", …" if len(present) > 20 else "")
                message = f"There is no label {show(label)} to map; the labels are {shown}."
                fault(errors, join("/target_transform", place, "labels", at), "unknown_label", message)
        present = [transform.to if label in transform.labels else label for label in present]


def bin_classes(transform: Bin, edges: list[float] | None) -> list[str]:
    """The names of the classes; those of quantiles are intervals once `edges` are learned."""
    if transform.labels is not None:
        return transform.labels
    if edges is None:
        return [f"quantile {place + 1} of {transform.quantiles}" for place in range(transform.quantiles or 0)]
    bounds = ["-inf", *(f"{edge:g}" for edge in edges), "inf"]
    return [f"{'(' if low == '-inf' else '['}{low}, {high})" for low, high in pairwise(bounds)]


def _check_order(
    transforms: list[TargetTransform], place: int, pointer: str, errors: list[ProblemError]
) -> None:
    here, before = transforms[place], transforms[place - 1]
    name = type(here).__name__
    if TAKES[type(here)] != GIVES[type(before)]:
        message = (
            f"{name} takes {TAKES[type(here)]}, and {type(before).__name__} before it gives "
            f"{GIVES[type(before)]}; take one of them out, or change the order."
        )
        fault(errors, pointer, "wrong_order", message)
    elif isinstance(here, Map) and binning(transforms) is not None:
        fault(
            errors,
            pointer,
            "wrong_order",
            'Bin names its classes itself: give it "labels" in place of a Map.',
        )
    elif isinstance(here, Log1p):
        fault(errors, pointer, "wrong_order", f"Log1p stands first; {type(before).__name__} came before it.")
    elif isinstance(here, Standardize) and isinstance(before, Standardize):
        fault(errors, pointer, "wrong_order", "Standardize twice is Standardize once; take one out.")


def _check_bin(transform: Bin, pointer: str, errors: list[ProblemError]) -> None:
    if (transform.edges is None) == (transform.quantiles is None):
        message = 'Bin takes either "edges" or "quantiles", exactly one of them.'
        fault(errors, pointer, "invalid_value", message)
        return
    edges = transform.edges
    if transform.quantiles is not None and transform.quantiles > MAX_QUANTILES:
        message = f"Bin makes at most {MAX_QUANTILES} classes; {transform.quantiles} came. Make it fewer."
        fault(errors, join(pointer, "quantiles"), "too_large", message)
        return
    if edges is not None and any(low >= high for low, high in pairwise(edges)):
        message = f"Bin.edges rise from one to the next; {show(edges)} came."
        fault(errors, join(pointer, "edges"), "invalid_value", message)
        return
    count = len(edges) + 1 if edges is not None else transform.quantiles
    labels = transform.labels
    if labels is not None and (len(labels) != count or len(set(labels)) != count):
        message = f"Bin makes {count} classes, and takes as many different labels; {show(labels)} came."
        fault(errors, join(pointer, "labels"), "invalid_value", message)
    elif labels is None and edges is not None and len(set(bin_classes(transform, edges))) != count:
        message = 'These edges read alike when they are written with six digits; give "labels".'
        fault(errors, join(pointer, "edges"), "invalid_value", message)
