"""Who asked for which change."""

from sqlalchemy import Select, select

from core.db.models import AuditEntry
from core.db.statements.paging import page


def list_entries(
    owner: str | None, *, key_id: str | None, after: str | None, limit: int
) -> Select[AuditEntry]:
    """Of one owner, or of all; with `key_id` only what that key asked for."""
    query = select(AuditEntry)
    if owner is not None:
        query = query.where(AuditEntry.owner == owner)
    if key_id is not None:
        query = query.where(AuditEntry.key_id == key_id)
    return page(query, AuditEntry.id, after, limit)
