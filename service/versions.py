"""How a version of a model goes: its files, and all but a tombstone of its row."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Version
from core.db.statements import batch_predictions, checkpoints, models
from core.errors import Conflict
from core.export import stored
from service.aliases import moving
from service.models import require_model, require_version
from service.parts import Parts


async def delete_version(parts: Parts, owner: str, name: str, number: int) -> None:
    """Its weights stay for as long as the job keeps that checkpoint. Raises NotFound, or Conflict with those
    who need it."""
    async with moving(parts, owner, name) as session:
        model = await require_model(session, owner, name)
        row = await require_version(session, owner, name, number)
        named = [alias for alias, version in model.aliases.items() if version == number]
        if named:
            raise Conflict(
                f"{name}@{number} is {', '.join(named)}; let {'it' if len(named) == 1 else 'them'} name "
                "another version first.",
                code="version_in_use",
            )
        users = await _users(session, row)
        if users:
            raise Conflict(
                f"{', '.join(users)} {'goes' if len(users) == 1 else 'go'} on from {name}@{number}; wait for "
                f"{'it' if len(users) == 1 else 'them'} to end, or cancel.",
                code="version_in_use",
            )
        checkpoint_id = row.checkpoint_id
        row.state = models.DELETED
        row.job_id = row.checkpoint_id = None
    await asyncio.to_thread(parts.storage.delete, row.manifest_key)
    if checkpoint_id is not None:  # what was made of its weights names it
        await asyncio.to_thread(stored.forget, parts.storage, checkpoint_id)


async def _users(session: AsyncSession, row: Version) -> list[str]:
    """Ids of what has not ended and needs this version."""
    assert row.checkpoint_id is not None, "only a tombstone has none"
    await session.scalars(checkpoints.lock_checkpoints([row.checkpoint_id]))  # as who forks from it does
    users = list(await session.scalars(models.jobs_beginning_with(row.checkpoint_id)))
    return users + list(await session.scalars(batch_predictions.asking_version(row.id)))
