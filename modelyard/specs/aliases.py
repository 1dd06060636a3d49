"""Aliases: names such as `production` that stand for a version, and the history of what they stood for."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

Reason = Annotated[
    str,
    Meta(
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="why, for the history: one line",
        examples=["the evening's training"],
    ),
]
Metric = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="a metric that both versions have: val_… or test_…",
        examples=["val_accuracy"],
    ),
]


class Requirement(Struct, forbid_unknown_fields=True, frozen=True):
    """What the new version must be, beside the one that the alias names: better in `metric` by at least
    `min_delta` (0: as good is enough; below 0: so much worse is still taken).

    `mode` says which way is better; it may be left out where the metric itself says so.
    """

    metric: Metric
    min_delta: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0
    mode: Literal["min", "max"] | None = None


class AliasUpdate(Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/models/{name}/aliases/{alias}`."""

    version: Annotated[int, Meta(ge=1)]
    require: Requirement | None = None
    reason: Reason | None = None


class RollbackRequest(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/models/{name}/aliases/{alias}/rollback`, which may be left out."""

    reason: Reason | None = None


class Mover(Struct, frozen=True):
    """Who moved an alias: `key` and `name` are those of the API key; None where keys are off, and for what
    was there before the history."""

    owner: str
    key: str | None = None
    name: str | None = None


class Compared(Struct, frozen=True):
    """A requirement that held. `incumbent` is None where the alias named no version before. `rows` are those
    that both were measured on for it; None where the numbers are those that the versions have."""

    metric: str
    mode: Literal["min", "max"]
    min_delta: float
    candidate: float
    incumbent: float | None = None
    rows: int | None = None


class MoveKind(StrEnum):
    SET = "set"
    ROLLBACK = "rollback"
    DELETE = "delete"


class AliasMove(Struct, frozen=True, rename={"from_version": "from", "to_version": "to"}):
    """One line of an alias's history. `seq` counts from 1, and `from` is the `to` of the line before: None
    where the alias named no version."""

    seq: int
    kind: MoveKind
    at: datetime
    by: Mover
    from_version: int | None = None
    to_version: int | None = None
    reason: str | None = None
    required: Compared | None = None
