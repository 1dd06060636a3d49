"""How many rows there are in each state, of all owners: from an index that begins with the state."""

from sqlalchemy import Select, func, select

from core.db.models import BatchPrediction, Dataset, Job


def jobs_by_state() -> Select[str, int]:
    return select(Job.state, func.count()).group_by(Job.state)


def batches_by_state() -> Select[str, int]:
    return select(BatchPrediction.state, func.count()).group_by(BatchPrediction.state)


def datasets_by_state() -> Select[str, int]:
    return select(Dataset.state, func.count()).group_by(Dataset.state)
