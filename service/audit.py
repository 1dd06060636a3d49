"""Who asked for which change: a session that writes it down with what it commits.

No handler has to think of it. The request is a context variable, so that whatever commits on its behalf finds
it; the first commit of a request adds the entry, in the transaction that makes the change.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core import ids
from core.db.engines import AsyncDatabase
from core.db.models import AuditEntry, utc_now
from core.redaction import redact
from service.auth import Principal

#: A PATCH is one of many pieces of an upload, which has an entry of its own.
AUDITED = frozenset({"POST", "PUT", "DELETE"})

MAX_TARGET = 500


@dataclass
class Asked:
    """One request. `is_told`: its entry is written; `is_over`: what still runs on its behalf is no longer
    it."""

    who: Principal
    action: str
    target: str
    request_id: str
    address: str
    is_told: bool = False
    is_over: bool = False

    def entry(self, made: list[str]) -> AuditEntry:
        return AuditEntry(
            id=ids.audit_id(),
            at=utc_now(),
            owner=self.who.owner,
            key_id=self.who.key_id,
            key_name=self.who.key_name,
            action=self.action,
            target=redact(self.target)[:MAX_TARGET],
            made=made,
            request_id=self.request_id,
            address=self.address,
        )


ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)


def keep_audit(database: AsyncDatabase) -> None:
    database.write.configure(sync_session_class=AuditedSession)


class AuditedSession(Session):
    def flush(self, objects: Any = None) -> None:
        made = self.info.setdefault("made", [])
        made += [row.id for row in self.new if _is_an_owners(row)]
        super().flush(objects)

    def commit(self) -> None:
        asked = ASKED.get()
        if asked is None or asked.is_told or asked.is_over:
            super().commit()
            return
        self.flush()
        self.add(asked.entry(list(self.info.get("made", []))))
        super().commit()
        asked.is_told = True  # what was rolled back has told nothing


def _is_an_owners(row: object) -> bool:
    return hasattr(row, "id") and hasattr(row, "owner") and not isinstance(row, AuditEntry)
