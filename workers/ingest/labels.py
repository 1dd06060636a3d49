"""Class labels: their order, and that no split has one that training never saw."""

import re
from collections.abc import Iterable, Mapping, Sequence

from core.errors import Invalid

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN = 20


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Distinct labels: those that look like integers first, as numbers; the others by codepoint."""
    return sorted(set(labels), key=_order)


def classes_of(labels: Mapping[str, Sequence[str]]) -> list[str]:
    """The classes of the training split. Raises `Invalid` where another split has a label that it lacks,
    or where there is no training split."""
    if not labels.get("train"):
        raise Invalid(
            f"expected a training split with at least one row, got only {', '.join(labels) or 'none'}; "
            "name a folder or file `train`",
            code="no_train_split",
        )
    classes = sort_labels(labels["train"])
    for split, values in labels.items():
        unseen = sort_labels(set(values).difference(classes))
        if unseen:
            shown = ", ".join(repr(label) for label in unseen[:_SHOWN])
            raise Invalid(
                f"the {split} split has labels that no training row has: {shown}"
                f"{' …' if len(unseen) > _SHOWN else ''}; correct them or add training rows",
                code="unseen_label",
            )
    return classes


def counts_of(indices: Iterable[int], num_classes: int) -> list[int]:
    counts = [0] * num_classes
    for index in indices:
        counts[index] += 1
    return counts


def _order(label: str) -> tuple[bool, int, str]:
    is_integer = _INTEGER.fullmatch(label) is not None
    return not is_integer, int(label) if is_integer else 0, label
