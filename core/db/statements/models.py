"""Models: versions and the aliases that point at them."""

from datetime import datetime

from sqlalchemy import Delete, Select, case, delete, func, select

from core.db.models import Alias, Checkpoint, Version
from core.db.statements.paging import page

READY = "ready"


def list_models(owner: str, after: str | None, limit: int) -> Select[Version]:
    """The newest version of each model."""
    newest = select(func.max(Version.id)).where(Version.owner == owner).group_by(Version.model)
    return page(select(Version).where(Version.id.in_(newest)), Version.id, after, limit)


def first_version(owner: str, model: str) -> Select[Version]:
    return (
        select(Version)
        .where(Version.owner == owner, Version.model == model)
        .order_by(Version.version)
        .limit(1)
    )


def list_versions(owner: str, model: str, after: str | None, limit: int) -> Select[Version]:
    query = select(Version).where(Version.owner == owner, Version.model == model)
    return page(query, Version.id, after, limit)


def get_version(owner: str, model: str, version: int) -> Select[Version]:
    return select(Version).where(Version.owner == owner, Version.model == model, Version.version == version)


def newest_ready(owner: str, model: str) -> Select[Version]:
    return (
        select(Version)
        .where(Version.owner == owner, Version.model == model, Version.state == READY)
        .order_by(Version.version.desc())
        .limit(1)
    )


def next_number(owner: str, model: str) -> Select[int]:
    return select(func.coalesce(func.max(Version.version), 0) + 1).where(
        Version.owner == owner, Version.model == model
    )


def versions_of_job(job_id: str) -> Select[str, int]:
    return select(Version.model, Version.version).where(Version.job_id == job_id)


def summaries(owner: str, models: list[str]) -> Select[str, datetime, int | None]:
    """Of each model: its name, when its first version was made, its newest ready version."""
    ready = case((Version.state == READY, Version.version), else_=None)
    return (
        select(Version.model, func.min(Version.created_at), func.max(ready))
        .where(Version.owner == owner, Version.model.in_(models))
        .group_by(Version.model)
    )


def aliases_of(owner: str, models: list[str]) -> Select[Alias]:
    return select(Alias).where(Alias.owner == owner, Alias.model.in_(models)).order_by(Alias.alias)


def get_alias(owner: str, model: str, alias: str) -> Select[Alias]:
    return select(Alias).where(Alias.owner == owner, Alias.model == model, Alias.alias == alias)


def delete_alias(owner: str, model: str, alias: str) -> Delete:
    return delete(Alias).where(Alias.owner == owner, Alias.model == model, Alias.alias == alias)


def weights_of(version_id: str) -> Select[Checkpoint]:
    return (
        select(Checkpoint)
        .join(Version, Version.checkpoint_id == Checkpoint.id)
        .where(Version.id == version_id)
    )


def ids_and_states(owner: str, model: str | None, limit: int) -> Select[str, str, int, str]:
    """(id, model, version, state) of the newest versions: of one model, or of all."""
    query = select(Version.id, Version.model, Version.version, Version.state).where(Version.owner == owner)
    if model is not None:
        query = query.where(Version.model == model)
    return query.order_by(Version.id.desc()).limit(limit)
