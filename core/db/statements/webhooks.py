"""Webhooks and their deliveries: what waits, who sends it, how it ended."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Delete, Select, Update, delete, func, select, update
from sqlalchemy.sql.dml import ReturningDelete

from core.db.models import Delivery, Webhook
from core.db.statements.paging import page
from modelyard.specs import DeliveryState

ENABLED, DISABLED = "enabled", "disabled"

#: What has ended is shown for so long.
KEPT = timedelta(days=30)


class Claim(NamedTuple):
    """A delivery as it was seen: a write about it counts only while its fence is still this."""

    webhook_id: str
    message_id: str
    fence: int


# What owners do


def get_webhook(owner: str, webhook_id: str) -> Select[Webhook]:
    return select(Webhook).where(Webhook.id == webhook_id, Webhook.owner == owner)


def lock_webhook(owner: str, webhook_id: str) -> Select[Webhook]:
    """Who writes a webhook and its deliveries takes them in this order, so that nobody waits in a circle."""
    return get_webhook(owner, webhook_id).with_for_update()


def list_webhooks(owner: str, after: str | None, limit: int) -> Select[Webhook]:
    return page(select(Webhook).where(Webhook.owner == owner), Webhook.id, after, limit)


def count_webhooks(owner: str) -> Select[int]:
    return select(func.count()).select_from(Webhook).where(Webhook.owner == owner)


def delete_webhook(owner: str, webhook_id: str) -> ReturningDelete[str]:
    """Its deliveries go with it."""
    return delete(Webhook).where(Webhook.id == webhook_id, Webhook.owner == owner).returning(Webhook.id)


def list_deliveries(webhook_id: str, *, state: str | None, after: str | None, limit: int) -> Select[Delivery]:
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if state is not None:
        query = query.where(Delivery.state == state)
    return page(query, Delivery.message_id, after, limit)


def replay(webhook_id: str, message_id: str | None, now: datetime) -> Update:
    """All dead letters of a webhook, or one message that has ended either way."""
    query = update(Delivery).where(Delivery.webhook_id == webhook_id)
    if message_id is None:
        query = query.where(Delivery.state == DeliveryState.DEAD)
    else:
        ended = (DeliveryState.DEAD, DeliveryState.DELIVERED)
        query = query.where(Delivery.message_id == message_id, Delivery.state.in_(ended))
    fresh = {"state": DeliveryState.WAITING, "attempts": 0, "next_at": now, "finished_at": None}
    return query.values(**fresh).returning(Delivery.message_id).execution_options(synchronize_session=False)


# What the outbox writes


def listening(owner: str) -> Select[str, list[Any]]:
    """Id and events of the webhooks of an owner. They cannot be deleted before the transaction has ended,
    which is about to write deliveries that refer to them."""
    return (
        select(Webhook.id, Webhook.events)
        .where(Webhook.owner == owner, Webhook.state == ENABLED)
        .with_for_update(read=True, key_share=True)
    )


# What senders do


def due(
    now: datetime, busy_webhooks: Collection[str], busy_owners: Collection[str], limit: int
) -> Select[str, str, int, str]:
    """webhook_id, message_id, fence, owner of what may be sent now, the longest due first."""
    return (
        select(Delivery.webhook_id, Delivery.message_id, Delivery.fence, Delivery.owner)
        .where(
            Delivery.state == DeliveryState.WAITING,
            Delivery.next_at <= now,
            Delivery.webhook_id.not_in(busy_webhooks),
            Delivery.owner.not_in(busy_owners),
        )
        .order_by(Delivery.next_at)
        .limit(limit)
    )


def claim(seen: Claim) -> Update:
    """Of all who try, one gets the row back, in its new state."""
    return (
        update(Delivery)
        .where(*_is(seen), Delivery.state == DeliveryState.WAITING)
        .values(state=DeliveryState.SENDING, fence=seen.fence + 1, attempts=Delivery.attempts + 1)
        .returning(Delivery)
        .execution_options(synchronize_session=False)
    )


def sending() -> Select[str, str, int]:
    """webhook_id, message_id, fence of what somebody has claimed."""
    return select(Delivery.webhook_id, Delivery.message_id, Delivery.fence).where(
        Delivery.state == DeliveryState.SENDING
    )


def settle(claimed: Claim, **values: Any) -> Update:
    """How a try ended. Touches no row where somebody else has claimed it since."""
    return (
        update(Delivery)
        .where(*_is(claimed), Delivery.state == DeliveryState.SENDING)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def set_state(webhook_id: str, state: str) -> Update:
    return update(Webhook).where(Webhook.id == webhook_id).values(state=state)


def bury_waiting(webhook_id: str, error: str, now: datetime) -> Update:
    """What waits for a webhook that was disabled becomes dead letters: a replay finds them."""
    return (
        update(Delivery)
        .where(Delivery.webhook_id == webhook_id, Delivery.state == DeliveryState.WAITING)
        .values(state=DeliveryState.DEAD, error=error, finished_at=now)
        .execution_options(synchronize_session=False)
    )


def forget_ended(before: datetime) -> Delete:
    ended = (DeliveryState.DEAD, DeliveryState.DELIVERED)
    return delete(Delivery).where(Delivery.state.in_(ended), Delivery.finished_at < before)


def _is(seen: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        Delivery.webhook_id == seen.webhook_id,
        Delivery.message_id == seen.message_id,
        Delivery.fence == seen.fence,
    )
