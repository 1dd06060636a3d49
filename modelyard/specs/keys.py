"""API keys: who they belong to, what they may; and the log of who changed what."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from modelyard.specs.common import Name

MAX_OVERLAP_S = 30 * 24 * 3600

#: An instant, with its offset from UTC.
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its offset from UTC")]


class Scope(StrEnum):
    READ = "read"
    TRAIN = "train"
    PREDICT = "predict"
    PROMOTE = "promote"
    ADMIN = "admin"


class KeyRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """`owner` left out is that of the key that asks. Without `expires_at` the key works until it is
    revoked."""

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))]
    owner: Name | None = None
    expires_at: Moment | None = None


class RotationRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The old key works for `overlap_s` more seconds. Without `expires_at` the new one lives as long as the
    old one was made for."""

    overlap_s: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)] = 24 * 3600
    expires_at: Moment | None = None


class Key(Struct):
    """`key` is there in the answer that made it, and never again. `rotated_from` is the id of the key in
    whose place this one was made."""

    id: str
    name: str
    owner: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_from: str | None = None
    key: str | None = None


class AuditEntry(Struct):
    """Who asked for a change. `action` is the route, `target` the path, `made` the ids of what it added;
    `key` and `name` are those of the key, None where keys are off."""

    id: str
    at: datetime
    owner: str
    key: str | None
    name: str | None
    action: str
    target: str
    made: list[str]
    request_id: str
    address: str
