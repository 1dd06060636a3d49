"""The moves that aliases made, and how one ends."""

from sqlalchemy import Delete, Select, delete, select

from core.db.models import Alias, AliasMove


def delete_alias(owner: str, model: str, alias: str) -> Delete:
    return delete(Alias).where(Alias.owner == owner, Alias.model == model, Alias.alias == alias)


def moves_before(owner: str, model: str, alias: str, before: int | None, limit: int) -> Select[AliasMove]:
    """Newest first; one row more than asked for, so that the caller sees whether there is a next page."""
    query = select(AliasMove).where(
        AliasMove.owner == owner, AliasMove.model == model, AliasMove.alias == alias
    )
    if before is not None:
        query = query.where(AliasMove.seq < before)
    return query.order_by(AliasMove.seq.desc()).limit(limit + 1)


def last_move(owner: str, model: str, alias: str) -> Select[AliasMove]:
    return moves_before(owner, model, alias, None, 0)
