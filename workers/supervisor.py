"""One attempt of a job: starts the child, writes down what it reports, and stops it when that is wanted.

The supervisor is the only writer. Every write carries the fence; one that touches no row means that
another attempt owns the job: the child is killed and nothing more is written.
"""

import errno
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db.models import Checkpoint, Job
from core.db.statements import checkpoints, datasets
from core.storage.durable import Damaged, verify
from core.uploads import upload_key, uploads_of
from modelyard.specs import JobErrorCode, Wanted
from workers import finish, messages
from workers.children import Child
from workers.house import House
from workers.ledger import Fenced, Ledger
from workers.messages import AnyReport, Committed, Order, Register, Resume, Stop

log = structlog.get_logger()

#: At most four transactions a second write progress; every write is also a beat and reads `wanted`.
FLUSH_S = 0.25
#: A quiet child (loading data, a long step) is still looked after this often, so that a cancel is heard.
LISTEN_S = 1.0
#: How long a child may take to leave its loop after a Stop before it is killed.
STOP_GRACE_S = 10.0


def supervise(house: House, job: Job) -> None:
    """Runs one claimed job until it ends, is lost, or the worker drains. Raises nothing."""
    bound = log.bind(job=job.id, fence=job.fence)
    scratch = house.settings.scratch() / "jobs" / job.id / str(job.fence)
    ledger = Ledger(house, job)
    child: Child | None = None
    try:
        bound.info("attempt_starts", attempt=job.attempt)
        finish.clear_earlier(scratch)
        order = _order(house, job, ledger, scratch)
        if order is None:
            return
        child = Child(order)
        Conversation(house, job, ledger, child).follow()
    except Fenced:
        bound.warning("attempt_fenced", hint="another attempt owns the job")
    except Exception as error:
        bound.exception("supervisor_failed")
        give_up(ledger, error)
    finally:
        if child is not None:
            child.end()
        finish.clear_scratch(scratch)
        bound.info("attempt_ends")


def give_up(ledger: Ledger, error: Exception) -> None:
    """Our own failure, not the child's. Where even this cannot be written the lease runs out, and the
    sweep gives the job to another."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    try:
        if is_full:
            ledger.fail(
                JobErrorCode.STORAGE_FULL, f"a checkpoint could not be stored: {error}", "free disk space"
            )
        else:
            ledger.lost(f"the worker failed: {type(error).__name__}: {error}")
    except (Fenced, SQLAlchemyError):
        log.exception("attempt_left_to_the_sweep", job=ledger.job_id)


def _order(house: House, job: Job, ledger: Ledger, scratch: Path) -> Order | None:
    """None where the job was failed because its dataset cannot be read."""
    prefix = f"datasets/{job.dataset_id}"
    try:
        with house.database.read() as session:
            dataset = session.scalars(datasets.dataset_of_job(job.dataset_id)).one()
        arrow = house.storage.fetch(f"{prefix}/{dataset.fence}/data.arrow")
        manifest = house.storage.fetch(f"{prefix}/{dataset.fence}/manifest.json")
    except FileNotFoundError as error:
        ledger.fail(
            JobErrorCode.DATASET_UNAVAILABLE, f"the dataset's file {error} is gone", "upload it again"
        )
        return None
    try:
        files = {
            named: str(house.storage.fetch(upload_key(named))) for named in uploads_of(job.spec).values()
        }
    except FileNotFoundError as error:
        ledger.fail(
            JobErrorCode.WEIGHTS_MISMATCH, f"the upload {error} that the job names is gone", "upload it again"
        )
        return None
    return Order(
        job=job.id,
        fence=job.fence,
        spec=job.spec,
        arrow=str(arrow),
        manifest=str(manifest),
        scratch=str(scratch),
        cache=str(house.settings.packed_cache()),
        threads=house.settings.cpu_threads(),
        use_gpu=house.settings.pool == "gpu",
        resolved=job.resolved,
        resume=_resume(house, job, ledger),
        uploads=files,
        plugins=house.settings.plugins,
        work=_work_per_step(job),
    )


def _work_per_step(job: Job) -> float | None:
    steps = job.progress.get("steps")
    return job.work / steps if job.work is not None and steps else None


def _resume(house: House, job: Job, ledger: Ledger) -> Resume | None:
    """The newest checkpoint whose files are what was written; what is damaged is marked and passed over."""
    with house.database.read() as session:
        rows = session.scalars(checkpoints.ready_checkpoints(job.id)).all()
    for row in rows:
        files = _intact(house, ledger, row)
        if files is not None:
            ledger.rewind(row)
            return Resume(*files)
    if job.attempt > 1:
        ledger.rewind(None)
    return None


def _intact(house: House, ledger: Ledger, row: Checkpoint) -> tuple[str, str] | None:
    """Local files of the weights and the state; None where they are not what was written, which is marked."""
    try:
        weights = _verified(house, row.weights_key, row.weights_bytes, row.weights_sha256)
        state = _verified(house, row.state_key, row.state_bytes, row.state_sha256)
    except (Damaged, FileNotFoundError) as error:
        ledger.mark_corrupt(row, str(error))
        return None
    return str(weights), str(state)


def _verified(house: House, key: str, size: int, sha256: str) -> Path:
    path = house.storage.fetch(key)
    verify(path, size, sha256)
    return path


@dataclass
class Conversation:
    """With the child of one attempt, from its first report to the end of either."""

    house: House
    job: Job
    ledger: Ledger
    child: Child
    stop_reason: str | None = None
    stop_before: float = 0.0
    is_over: bool = False
    flushed_at: float = field(default_factory=time.monotonic)

    def follow(self) -> None:
        """Until the job or the child has ended. Raises Fenced where another attempt owns the job."""
        while not self.is_over:
            self.child.wait(max(0.0, self.due_at() - time.monotonic()))
            was_alive = self.child.alive  # asked before reading: a dead child's last words are all there
            for report in self.child.reports():
                self.take(report)
            self.flush_when_due()
            if not was_alive:
                self.child_died()

    def due_at(self) -> float:
        return self.flushed_at + (FLUSH_S if self.ledger.has_news else LISTEN_S)

    def flush_when_due(self) -> None:
        if not self.is_over and time.monotonic() >= self.due_at():
            self.flush()

    def flush(self) -> None:
        self.flushed_at = time.monotonic()
        self.look(self.ledger.flush())

    def take(self, report: AnyReport) -> None:
        match report:
            case messages.Started():
                self.ledger.started(report)
                self.flush()  # the first step is what a watcher waits for
            case messages.Stepped():
                self.ledger.stepped(report)
            case messages.EpochEnded():
                self.ledger.epoch_ended(report)
            case messages.Alive():
                pass
            case messages.Noted():
                self.ledger.noted(report)
            case messages.Saved():
                self.look(finish.commit_checkpoint(self.house, self.ledger, report))
                self.child.tell(Committed(report.step))
            case messages.Trained():
                self.child.tell(self.choose())
            case messages.Verified():
                finish.register(self.house, self.ledger, report)
                self.is_over = True
            case messages.Stopped():
                self.ledger.stopped(self.stop_reason or "stopped", self.wants_cancel)
                self.is_over = True
            case messages.WentAstray():
                self.ledger.fail(JobErrorCode.NON_FINITE_LOSS, report.message, "lower the learning rate")
                self.is_over = True
            case messages.Failed():
                self.ledger.fail(report.code, report.message, report.hint)
                self.is_over = True
            case _:
                assert_never(report)

    def choose(self) -> Register:
        """The best checkpoint by the job's monitor, else the newest, of those whose files are intact."""
        while True:
            with self.house.database.read() as session:
                row = finish.chosen_checkpoint(session, self.job.id)
            files = _intact(self.house, self.ledger, row)
            if files is not None:
                return Register(*files)

    def look(self, wanted: str) -> None:
        """At what the owner and the operator want."""
        if self.stop_reason is None:
            if wanted == Wanted.CANCEL:
                self.stop("cancelled by its owner")
            elif self.house.draining.is_set():
                self.stop("drained")
        elif time.monotonic() > self.stop_before:
            self.ledger.stopped(self.stop_reason, self.wants_cancel)
            self.is_over = True  # the child did not leave in time: the caller kills it

    def stop(self, reason: str) -> None:
        self.stop_reason = reason
        self.stop_before = time.monotonic() + STOP_GRACE_S
        self.child.tell(Stop(save=reason == "drained"))

    @property
    def wants_cancel(self) -> bool:
        return self.stop_reason is not None and self.stop_reason != "drained"

    def child_died(self) -> None:
        """Without a last word: killed from outside, out of memory, or a crash in native code."""
        if self.is_over:
            return
        if self.stop_reason is not None:
            self.ledger.stopped(self.stop_reason, self.wants_cancel)
        else:
            self.ledger.lost(f"the training process ended with {self.child.exit_reason}")
        self.is_over = True
