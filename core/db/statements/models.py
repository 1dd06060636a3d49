"""Models: versions and the aliases that point at them. Tombstones are seen by `next_number` and `lock_model`
alone."""

from datetime import datetime

from sqlalchemy import Select, case, func, select

from core.db.models import Alias, Checkpoint, Dataset, Job, Version
from core.db.statements.jobs import TERMINAL
from core.db.statements.paging import page

READY = "ready"
#: What a reader does not see: its files went, only the tombstone stays.
DELETED = "deleted"


def list_models(owner: str, after: str | None, limit: int) -> Select[Version]:
    """The newest version of each model."""
    newest = (
        select(func.max(Version.id))
        .where(Version.owner == owner, Version.state != DELETED)
        .group_by(Version.model)
    )
    return page(select(Version).where(Version.id.in_(newest)), Version.id, after, limit)


def first_version(owner: str, model: str) -> Select[Version]:
    return (
        select(Version)
        .where(Version.owner == owner, Version.model == model, Version.state != DELETED)
        .order_by(Version.version)
        .limit(1)
    )


def list_versions(owner: str, model: str, after: str | None, limit: int) -> Select[Version]:
    query = select(Version).where(Version.owner == owner, Version.model == model, Version.state != DELETED)
    return page(query, Version.id, after, limit)


def get_version(owner: str, model: str, version: int) -> Select[Version]:
    return select(Version).where(
        Version.owner == owner,
        Version.model == model,
        Version.version == version,
        Version.state != DELETED,
    )


def newest_ready(owner: str, model: str) -> Select[Version]:
    return (
        select(Version)
        .where(Version.owner == owner, Version.model == model, Version.state == READY)
        .order_by(Version.version.desc())
        .limit(1)
    )


def ready_numbers(owner: str, model: str) -> Select[int]:
    return select(Version.version).where(
        Version.owner == owner, Version.model == model, Version.state == READY
    )


def lock_model(owner: str, model: str) -> Select[str]:
    """Held until the transaction ends: who moves an alias of a model or deletes a version of it takes turns.
    The lock is on the first version, whose row stays for ever. No row: no such model."""
    return (
        select(Version.id)
        .where(Version.owner == owner, Version.model == model)
        .order_by(Version.version)
        .limit(1)
        .with_for_update(key_share=True)
    )


def next_number(owner: str, model: str) -> Select[int]:
    """Numbers of deleted versions are not given again."""
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
        .where(Version.owner == owner, Version.model.in_(models), Version.state != DELETED)
        .group_by(Version.model)
    )


def aliases_of(owner: str, models: list[str]) -> Select[Alias]:
    return select(Alias).where(Alias.owner == owner, Alias.model.in_(models)).order_by(Alias.alias)


def get_alias(owner: str, model: str, alias: str) -> Select[Alias]:
    return select(Alias).where(Alias.owner == owner, Alias.model == model, Alias.alias == alias)


def weights_of(version_id: str) -> Select[Checkpoint]:
    return (
        select(Checkpoint)
        .join(Version, Version.checkpoint_id == Checkpoint.id)
        .where(Version.id == version_id)
    )


def ids_and_states(owner: str, model: str | None, limit: int) -> Select[str, str, int, str]:
    """(id, model, version, state) of the newest versions: of one model, or of all."""
    query = select(Version.id, Version.model, Version.version, Version.state).where(
        Version.owner == owner, Version.state != DELETED
    )
    if model is not None:
        query = query.where(Version.model == model)
    return query.order_by(Version.id.desc()).limit(limit)


def learned_from(version_ids: list[str]) -> Select[str, Dataset, Checkpoint]:
    """Of each version: its id, its dataset and its weights."""
    return (
        select(Version.id, Dataset, Checkpoint)
        .join(Job, Job.id == Version.job_id)
        .join(Dataset, Dataset.id == Job.dataset_id)
        .join(Checkpoint, Checkpoint.id == Version.checkpoint_id)
        .where(Version.id.in_(version_ids))
    )


def jobs_beginning_with(checkpoint_id: str) -> Select[str]:
    """Jobs that have not ended and begin with these weights."""
    return select(Job.id).where(Job.start_checkpoint_id == checkpoint_id, Job.state.not_in(TERMINAL)).limit(5)


def version_of(checkpoint_id: str) -> Select[Version]:
    """The version that was registered from a checkpoint; of several a ready one, then the newest."""
    return (
        select(Version)
        .where(Version.checkpoint_id == checkpoint_id)
        .order_by(case((Version.state == READY, 0), else_=1), Version.id.desc())
        .limit(1)
    )
