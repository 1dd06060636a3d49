"""The processes that take work."""

from sqlalchemy import Delete, Select, Update, delete, select, update

from core.db.models import Worker


def beat_worker(worker_id: str, busy: int) -> Update:
    return (
        update(Worker)
        .where(Worker.id == worker_id)
        .values(beat=Worker.beat + 1, busy=busy)
        .returning(Worker.id)
    )


def list_workers() -> Select[Worker]:
    return select(Worker)


def remove_worker(worker_id: str) -> Delete:
    return delete(Worker).where(Worker.id == worker_id)


def remove_silent_worker(worker_id: str, beat: int) -> Delete:
    """Only if it has not beaten since it was seen."""
    return delete(Worker).where(Worker.id == worker_id, Worker.beat == beat)
