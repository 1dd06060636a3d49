"""What rows a version takes, and which columns its tables have."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.errors import Invalid
from core.faults import suggestion

MAX_SHOWN = 20


@dataclass(frozen=True)
class Takes:
    """`columns` are those of a table; empty for images and arrays."""

    kind: Kind
    columns: Sequence[FittedColumn]


def require_table(takes: Takes, media_type: str) -> None:
    """Raises Invalid where the model takes no table."""
    if takes.kind is not Kind.TABLE:
        raise Invalid(
            f"This model takes {takes.kind}, and {media_type} holds rows of a table. Send JSON instances.",
            code="wrong_kind",
        )


def require_columns(names: Sequence[str], takes: Takes) -> None:
    """Raises Invalid for a name that is there twice, one that the model does not know, and one that it cannot
    do without."""
    known = [column.name for column in takes.columns]
    there = dict.fromkeys(names)
    wrong = [
        f"{column.name!r} is missing."
        for column in takes.columns
        if not column.may_be_missing and column.name not in there
    ]
    for name in there:
        if len(wrong) >= MAX_SHOWN:
            break
        if name not in known:
            wrong.append(f"{name[:100]!r} is not one of them.{suggestion(name, known)}")
        elif names.count(name) > 1:
            wrong.append(f"{name!r} stands twice.")
    if wrong:
        shown = ", ".join(known[:MAX_SHOWN])
        said = " ".join(wrong[:MAX_SHOWN])
        raise Invalid(f"The columns that this model takes are {shown}. {said}", code="columns")
