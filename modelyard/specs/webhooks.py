"""Webhooks: who is told of what, and how each message fared."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        description="https://… with a public address; the messages are sent there with POST",
        examples=["https://hooks.example.com/modelyard"],
    ),
]


class WebhookEvent(StrEnum):
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    VERSION_REGISTERED = "version.registered"
    VERSION_REJECTED = "version.rejected"
    ALIAS_MOVED = "alias.moved"


class DeliveryState(StrEnum):
    #: for its next try, at `next_at`
    WAITING = "waiting"
    #: a try is under way
    SENDING = "sending"
    #: the receiver answered 2xx
    DELIVERED = "delivered"
    #: a dead letter: the last try failed too, or the receiver said 410
    DEAD = "dead"


class WebhookRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/webhooks`."""

    url: Url
    events: Annotated[list[WebhookEvent], Meta(min_length=1, max_length=len(WebhookEvent))]


class Webhook(Struct):
    """`state`: `enabled`, or `disabled` since the receiver answered 410 Gone; a replay enables it again."""

    id: str
    url: str
    events: list[WebhookEvent]
    state: Literal["enabled", "disabled"]
    created_at: datetime


class CreatedWebhook(Webhook):
    """`secret` is shown here and never again: `whsec_` and the base64 of the key that signs."""

    secret: str


class Delivery(Struct):
    """One message to one webhook. `id` is what the receiver sees as `webhook-id`, the same in every try.

    `attempts` counts the tries since it was written or replayed; `status` and `error` are those of the last
    one. `next_at` is there while it waits.
    """

    id: str
    type: WebhookEvent
    state: DeliveryState
    attempts: int
    data: dict[str, Any]
    created_at: datetime
    status: int | None = None
    error: str | None = None
    next_at: datetime | None = None
    finished_at: datetime | None = None


class ReplayRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /v1/webhooks/{id}/replay`, which may be left out: then all dead letters."""

    delivery: Annotated[str, Meta(pattern=r"^msg_[0-9a-f]{32}$")] | None = None


class Replayed(Struct):
    """How many messages wait for a new round of tries."""

    replayed: int
