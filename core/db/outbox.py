"""The outbox of webhooks: what they tell of is written down in the transaction in which it happens.

It hangs on the rows that say so (a job's terminal event, a version, a move of an alias) and not on the
dozen places that add them: none can forget it, and none can commit the one without the other.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, event, insert, select
from sqlalchemy.orm import Mapper

from core import ids
from core.db.models import AliasMove, Delivery, Event, Job, Version
from core.db.statements import webhooks
from core.db.statements.jobs import TERMINAL
from modelyard.specs import DeliveryState, JobState, WebhookEvent

_OF_STATE = {
    JobState.SUCCEEDED: WebhookEvent.JOB_SUCCEEDED,
    JobState.FAILED: WebhookEvent.JOB_FAILED,
    JobState.CANCELLED: WebhookEvent.JOB_CANCELLED,
}


def listen() -> None:
    """From now on, in this process. Calling it again changes nothing."""
    for row, told in ((Event, _event_added), (Version, _version_added), (AliasMove, _alias_moved)):
        if not event.contains(row, "after_insert", told):
            event.listen(row, "after_insert", told)


def _event_added(_mapper: Mapper[Event], connection: Connection, row: Event) -> None:
    if row.type != "state" or row.data.get("state") not in TERMINAL:
        return
    job = connection.execute(select(Job.owner, Job.name).where(Job.id == row.job_id)).one()
    state = JobState(row.data["state"])
    data = {"id": row.job_id, "name": job.name, "state": state, "seq": row.seq}
    _tell(connection, job.owner, _OF_STATE[state], data, row.at)


def _version_added(_mapper: Mapper[Version], connection: Connection, row: Version) -> None:
    kind = WebhookEvent.VERSION_REJECTED if row.state == "rejected" else WebhookEvent.VERSION_REGISTERED
    data = {"id": row.id, "model": row.model, "version": row.version, "job": row.job_id}
    _tell(connection, row.owner, kind, data, row.created_at)


def _alias_moved(_mapper: Mapper[AliasMove], connection: Connection, row: AliasMove) -> None:
    data = {
        "id": f"{row.model}@{row.alias}",
        "model": row.model,
        "alias": row.alias,
        "seq": row.seq,
        "kind": row.kind,
        "from": row.from_version,
        "to": row.to_version,
    }
    _tell(connection, row.owner, WebhookEvent.ALIAS_MOVED, data, row.at)


def _tell(connection: Connection, owner: str, kind: WebhookEvent, data: dict[str, Any], at: datetime) -> None:
    """A message to each webhook of the owner that listens to this: names and numbers, no more."""
    hooks = connection.execute(webhooks.listening(owner)).all()
    listening = [hook.id for hook in hooks if kind in hook.events]
    if not listening:
        return
    message = {"type": kind, "timestamp": at, "data": data}
    row = {
        "message_id": ids.message_id(),
        "owner": owner,
        "type": kind,
        "body": msgspec.json.encode(message).decode(),
        "state": DeliveryState.WAITING,
        "next_at": at,
        "created_at": at,
    }
    connection.execute(insert(Delivery), [{**row, "webhook_id": hook} for hook in listening])
