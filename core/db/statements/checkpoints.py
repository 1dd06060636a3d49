"""Checkpoints of a job, newest first."""

from sqlalchemy import CompoundSelect, Delete, Select, Update, delete, select, update

from core.db.models import Checkpoint, Job, Version
from core.db.statements.jobs import TERMINAL
from core.db.statements.paging import page


def list_checkpoints(owner: str, job_id: str, after: str | None, limit: int) -> Select[Checkpoint]:
    query = select(Checkpoint).where(Checkpoint.owner == owner, Checkpoint.job_id == job_id)
    return page(query, Checkpoint.id, after, limit)


def get_checkpoint(owner: str, checkpoint_id: str) -> Select[Checkpoint]:
    return select(Checkpoint).where(Checkpoint.owner == owner, Checkpoint.id == checkpoint_id)


def ready_checkpoints(job_id: str) -> Select[Checkpoint]:
    return (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.state == "ready")
        .order_by(Checkpoint.step.desc(), Checkpoint.id.desc())
    )


def ready_among(checkpoint_ids: list[str]) -> Select[str]:
    return select(Checkpoint.id).where(Checkpoint.id.in_(checkpoint_ids), Checkpoint.state == "ready")


def set_checkpoint_state(checkpoint_id: str, state: str) -> Update:
    return update(Checkpoint).where(Checkpoint.id == checkpoint_id).values(state=state)


def forget_best(job_id: str) -> Update:
    return update(Checkpoint).where(Checkpoint.job_id == job_id).values(is_best=False)


def needed(checkpoint_ids: list[str]) -> CompoundSelect[str | None]:
    """Checkpoints among these that a version needs, or a fork that has not ended."""
    versions = select(Version.checkpoint_id).where(Version.checkpoint_id.in_(checkpoint_ids))
    return versions.union(
        select(Job.start_checkpoint_id).where(
            Job.start_checkpoint_id.in_(checkpoint_ids), Job.state.not_in(TERMINAL)
        )
    )


def forks_needing(job_id: str) -> Select[str]:
    """Jobs that have not ended and begin with a checkpoint of this one."""
    return (
        select(Job.id)
        .join(Checkpoint, Checkpoint.id == Job.start_checkpoint_id)
        .where(Checkpoint.job_id == job_id, Job.state.not_in(TERMINAL))
        .limit(5)
    )


def lock_checkpoints(checkpoint_ids: list[str]) -> Select[Checkpoint]:
    """Held until the transaction ends: who collects or deletes them and who forks from them take turns."""
    return (
        select(Checkpoint)
        .where(Checkpoint.id.in_(checkpoint_ids))
        .order_by(Checkpoint.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def lock_checkpoints_of(job_id: str) -> Select[Checkpoint]:
    return select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id).with_for_update()


def files_of(job_id: str) -> Select[str, str]:
    """Storage keys of every checkpoint of a job: weights, state."""
    return select(Checkpoint.weights_key, Checkpoint.state_key).where(Checkpoint.job_id == job_id)


def kept_files_of(job_id: str) -> Select[str, str]:
    """Those of `files_of` that have not been collected."""
    return files_of(job_id).where(Checkpoint.state != "collected")


def delete_checkpoints(job_id: str) -> Delete:
    return delete(Checkpoint).where(Checkpoint.job_id == job_id)
