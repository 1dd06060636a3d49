"""Models as clients read them, and the versions that a request names."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import Version
from core.db.statements import models
from core.errors import Conflict, Invalid, NotFound
from modelyard.specs import Model, ProblemError

MAX_NUMBER = 2**31 - 1


async def require_model(session: AsyncSession, owner: str, name: str) -> Model:
    found = await models_of(session, owner, [name])
    if name not in found:
        raise unknown_model(name)
    return found[name]


async def models_of(session: AsyncSession, owner: str, names: Sequence[str]) -> dict[str, Model]:
    """By name; without those that there are not."""
    aliases: dict[str, dict[str, int]] = defaultdict(dict)
    for alias in await session.scalars(models.aliases_of(owner, list(names))):
        aliases[alias.model][alias.alias] = alias.version
    rows = (await session.execute(models.summaries(owner, list(names)))).all()
    return {name: Model(name, created_at, latest, aliases[name]) for name, created_at, latest in rows}


async def require_version(session: AsyncSession, owner: str, name: str, number: int) -> Version:
    row = await _version(session, owner, name, number)
    if row is None:
        raise NotFound(f"{name} has no version {number}; GET /v1/models/{name}/versions lists them.")
    return row


async def require_ready(session: AsyncSession, owner: str, name: str, number: int) -> Version:
    """The version that the field `/version` of a body names. Raises Invalid where there is none, Conflict
    where it cannot predict."""
    row = await _version(session, owner, name, number)
    if row is None:
        message = f"{name} has no version {number}"
        raise Invalid(
            f"{message}; GET /v1/models/{name}/versions lists them.",
            code="unknown_version",
            errors=[ProblemError("/version", "unknown_version", message)],
        )
    if row.state != models.READY:
        raise Conflict(f"{name}@{number} is {row.state}: it cannot predict.", code="version_not_ready")
    return row


def unknown_model(name: str) -> NotFound:
    return NotFound(f"You have no model {name[:100]!r}; GET /v1/models lists them.")


def unknown_alias(model: Model, alias: str) -> NotFound:
    listed = ", ".join(model.aliases) or "none"
    return NotFound(f"{model.name} has no alias {alias[:100]!r}; it has {listed}.")


async def _version(session: AsyncSession, owner: str, name: str, number: int) -> Version | None:
    if number > MAX_NUMBER:
        return None
    return (await session.scalars(models.get_version(owner, name, number))).one_or_none()
