"""Which versions an owner has, of one model or of all."""

from typing import NamedTuple

from core.db.engines import AsyncDatabase
from core.db.statements import models
from service.models import unknown_model

#: The newest. A list of the protocol has no pages.
MAX_LISTED = 1000


class Listed(NamedTuple):
    id: str
    model: str
    version: int
    state: str


async def versions(database: AsyncDatabase, owner: str, model: str | None = None) -> list[Listed]:
    """The newest first. Raises NotFound for a model that isn't there."""
    async with database.read() as session:
        rows = (await session.execute(models.ids_and_states(owner, model, MAX_LISTED))).all()
    if model is not None and not rows:
        raise unknown_model(model)
    return [Listed(*row) for row in rows]


async def ready_numbers(database: AsyncDatabase, owner: str, model: str) -> list[int]:
    return [one.version for one in await versions(database, owner, model) if one.state == models.READY]
