"""The tasks: each a story told once. A wake-up carries no id; the database says what there is to do."""

import contextlib

from sqlalchemy.orm import Session

from core.data.pruning import prune
from core.db.models import BatchPrediction, Dataset, Job, utc_now
from core.db.statements import batch_predictions, jobs, leases
from core.fault_points import reach
from modelyard.specs import BatchState, JobState
from workers.house import House
from workers.ingestion import ingest
from workers.predictions import supervisor as predicting
from workers.supervisor import supervise


def wake(house: House) -> None:
    """Works until nothing in the pool is left to claim, or the worker drains."""
    one = ingest_one if house.settings.pool == "data" else work_one
    while not house.draining.is_set() and one(house):
        pass


def work_one(house: House) -> bool:
    """The best of what waits: a batch prediction where no job stands before it."""
    return predict_one(house) or train_one(house)


def train_one(house: House) -> bool:
    """Claims the best job of the pool and sees it to the end of this attempt. False: there was none."""
    with contextlib.ExitStack() as held:
        with house.claiming:  # one thread at a time: two would count the same slots as free
            job = claim(house)
            if job is None:
                return False
            slots = held.enter_context(house.busy(job.devices))
        reach("worker.claimed")
        supervise(house, job, slots)
        prune(house.settings.packed_cache(), house.settings.packed_cache_bytes)
    return True


def claim(house: House) -> Job | None:
    """None where nothing waits that this worker could run, or where the best of it needs more slots than are
    free."""
    if house.free == 0:
        return None
    with house.database.write() as session:
        job = _claim(session, house)
        session.commit()
    return job


def _claim(session: Session, house: House) -> Job | None:
    now, settings = utc_now(), house.settings
    job: Job | None = session.scalar(
        leases.claim_job(settings.pool, now, worker_id=house.worker_id, slots=settings.slots, free=house.free)
    )
    if job is not None:
        session.add(jobs.move(job, JobState.RUNNING, f"attempt {job.attempt} on {house.host}", now))
    return job


def predict_one(house: House) -> bool:
    """Claims the oldest batch prediction of the pool, unless a job stands before it, and sees it to the end
    of this attempt. False: there was none."""
    with contextlib.ExitStack() as held:
        with house.claiming:
            batch = claim_batch(house)
            if batch is None:
                return False
            slots = held.enter_context(house.busy())
        predicting.supervise(house, batch, slots)
    return True


def claim_batch(house: House) -> BatchPrediction | None:
    if house.free == 0:
        return None
    settings, now = house.settings, utc_now()
    with house.database.write() as session:
        batch: BatchPrediction | None = session.scalar(
            batch_predictions.claim(settings.pool, now, worker_id=house.worker_id, slots=settings.slots)
        )
        if batch is not None:
            reason = f"attempt {batch.attempt} on {house.host}"
            batch_predictions.move(batch, BatchState.RUNNING, reason, now)
        session.commit()
    return batch


def ingest_one(house: House) -> bool:
    with house.database.write() as session:
        dataset: Dataset | None = session.scalar(leases.claim_dataset())
        session.commit()
    if dataset is None:
        return False
    with house.busy():
        ingest(house, dataset)
    return True
