"""Lists, newest first, by the id: UUIDv7 sorts by time of creation."""

from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

T = TypeVar("T")


def page(query: Select[T], id_column: InstrumentedAttribute[str], after: str | None, limit: int) -> Select[T]:
    """One row more than asked for, so that the caller sees whether there is a next page."""
    if after is not None:
        query = query.where(id_column < after)
    return query.order_by(id_column.desc()).limit(limit + 1)
