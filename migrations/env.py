"""What Alembic runs: our tables against the connection that `migrations` hands over. Knows nothing else."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import BigInteger

from core.db.models import Base, UtcDateTime
from migrations import is_compared


def render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Revisions name plain SQLAlchemy types, so that they outlive our own; the two longest have a name in
    `script.py.mako`."""
    match kind, item:
        case "type", UtcDateTime():
            return "TIME"
        case "type", BigInteger():
            return "INT"
        case _:
            return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=render,
    include_object=is_compared,
    render_as_batch=True,  # SQLite alters a table by rebuilding it
)
with context.begin_transaction():
    context.run_migrations()
