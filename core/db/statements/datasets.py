"""Dataset versions."""

from sqlalchemy import Select, func, select

from core.db.models import Dataset, Job
from core.db.statements.jobs import TERMINAL
from core.db.statements.paging import page

#: What a reader does not see: the bytes went, only the tombstone stays.
DELETED = "deleted"


def list_datasets(owner: str, after: str | None, limit: int) -> Select[Dataset]:
    """The newest version of each name."""
    newest = (
        select(func.max(Dataset.id))
        .where(Dataset.owner == owner, Dataset.state != DELETED)
        .group_by(Dataset.name)
    )
    return page(select(Dataset).where(Dataset.id.in_(newest)), Dataset.id, after, limit)


def list_versions(owner: str, name: str, after: str | None, limit: int) -> Select[Dataset]:
    query = select(Dataset).where(Dataset.owner == owner, Dataset.name == name, Dataset.state != DELETED)
    return page(query, Dataset.id, after, limit)


def ids_of(owner: str, name: str) -> Select[str]:
    return select(Dataset.id).where(Dataset.owner == owner, Dataset.name == name, Dataset.state != DELETED)


def get_version(owner: str, name: str, version: int) -> Select[Dataset]:
    return select(Dataset).where(
        Dataset.owner == owner,
        Dataset.name == name,
        Dataset.version == version,
        Dataset.state != DELETED,
    )


def newest_version(owner: str, name: str, *, state: str | None = None) -> Select[Dataset]:
    query = select(Dataset).where(Dataset.owner == owner, Dataset.name == name, Dataset.state != DELETED)
    if state is not None:
        query = query.where(Dataset.state == state)
    return query.order_by(Dataset.version.desc()).limit(1)


def next_number(owner: str, name: str) -> Select[int]:
    """Numbers of deleted versions are not given again."""
    return select(func.coalesce(func.max(Dataset.version), 0) + 1).where(
        Dataset.owner == owner, Dataset.name == name
    )


def lock_dataset(dataset_id: str, *, fence: int | None = None) -> Select[Dataset]:
    query = select(Dataset).where(Dataset.id == dataset_id)
    if fence is not None:
        query = query.where(Dataset.fence == fence, Dataset.state == "ingesting")
    return query.with_for_update()


def dataset_of_job(dataset_id: str) -> Select[Dataset]:
    return select(Dataset).where(Dataset.id == dataset_id)


def by_ids(dataset_ids: list[str]) -> Select[Dataset]:
    return select(Dataset).where(Dataset.id.in_(dataset_ids))


def jobs_using(dataset_id: str) -> Select[str]:
    """Jobs that are not terminal and still read this version."""
    return select(Job.id).where(Job.dataset_id == dataset_id, Job.state.not_in(TERMINAL)).limit(5)


def kept_bytes(owner: str) -> Select[int | None]:
    """Of an owner's datasets, as they were sent or fetched."""
    return select(func.sum(Dataset.bytes)).where(Dataset.owner == owner, Dataset.state != DELETED)


def revisions(dataset_ids: list[str]) -> Select[str, int]:
    return select(Dataset.id, Dataset.revision).where(Dataset.id.in_(dataset_ids))
