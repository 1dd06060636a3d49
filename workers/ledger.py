"""What one attempt writes to the database: progress, metrics, events and the end. Every write is fenced."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog
from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.db.models import Checkpoint, Job, Metric, utc_now
from core.db.statements import checkpoints, jobs, leases
from modelyard.specs import JobError, JobErrorCode, JobState, Wanted
from workers.house import House
from workers.messages import EpochEnded, Noted, Started, Stepped

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 0.5
#: Is among the metrics of every checkpoint that was measured on the validation split.
MEASURED = "val_loss"
#: Why an attempt ended before its job, where that was its owner's wish.
BY_OWNER = {Wanted.CANCEL: "cancelled by its owner", Wanted.PAUSE: "paused by its owner"}


#: The type of the event that says so; from then on the job is trained carefully.
WENT_ASTRAY = "went_astray"


class Fenced(Exception):
    """A write touched no row: another attempt owns the job, or it has ended."""


class Wish(NamedTuple):
    """What the owner wants of the job, and the job that it must make room for."""

    wanted: str
    preempted_by: str | None = None


@dataclass(frozen=True)
class Turn:
    """A transaction under way, and what is wished."""

    session: Session
    wish: Wish


class Ledger:
    """Gathers what the child reports and writes it in few transactions."""

    def __init__(self, house: House, job: Job) -> None:
        self._house = house
        self.job_id, self.fence, self.owner = job.id, job.fence, job.owner
        self.spec = job.spec
        self._progress: dict[str, Any] = {"epochs": job.spec["trainer"]["epochs"], **job.progress}
        self._metrics: dict[str, Any] = dict(job.metrics)
        self.resolved: dict[str, Any] = job.resolved
        self._resolved: dict[str, Any] | None = None
        self._started_at = job.started_at
        self._events: list[tuple[str, dict[str, Any], datetime]] = []
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        self.has_news = False
        #: Whether the last try may have been committed by a database that could not say so.
        self._is_unsure = False
        #: Why there is nothing left to train.
        self.ended = ""

    # What the child says

    def started(self, report: Started) -> None:
        at = datetime.fromtimestamp(report.at, UTC)
        self._started_at = self._started_at or at
        self.resolved = self._resolved = report.resolved
        self._progress |= {"step": report.step, "steps": report.steps}
        data = {"resolved": report.resolved, "step": report.step, "stages_ms": report.stages_ms}
        self._event("started", data, at)

    def stepped(self, report: Stepped) -> None:
        steps = self._progress.get("steps") or 0
        self._progress |= {
            "epoch": report.epoch,
            "step": report.step,
            "fraction": report.step / steps if steps else 0.0,
            "samples_per_second": report.samples_per_second,
            "eta_seconds": report.eta_seconds,
        }
        self._measured(report.metrics, report.step, report.epoch)

    def epoch_ended(self, report: EpochEnded) -> None:
        steps = self._progress.get("steps") or 0
        self._progress |= {
            "epoch": report.epoch,
            "step": report.step,
            "fraction": report.step / steps if steps else 0.0,
        }
        self._measured(report.metrics, report.step, report.epoch)
        data = {"epoch": report.epoch, "step": report.step, "metrics": finite(report.metrics)}
        self._event("epoch", data)

    def noted(self, report: Noted) -> None:
        self._event(report.type, report.data)

    def went_astray(self, message: str) -> None:
        self._event(WENT_ASTRAY, {"message": message})

    def lacked_room(self, data: dict[str, Any]) -> None:
        self._event("storage_full", data)

    def warned(self, message: str) -> None:
        self._event("warning", {"message": message})

    # Writing

    def flush(self) -> Wish:
        """Writes what has gathered, beats, and returns what is wished. Raises Fenced."""
        return self.patiently(self._flush)

    def patiently(self, write: Callable[[], T]) -> T:
        """Tries a transaction again while the database is away, for half a lease: a restart of it costs no
        attempt. After that the lease is as good as lost, and the error is raised."""
        give_up_at = time.monotonic() + self._house.settings.lease_s / 2
        while True:
            try:
                return write()
            except OperationalError as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("database_away", job=self.job_id, reason=str(error.orig))
                self._is_unsure = True
                time.sleep(RETRY_S)

    @contextlib.contextmanager
    def transaction(self, **more: Any) -> Iterator[Turn]:
        """One fenced transaction: what has gathered and `more` columns of the job, then what the caller
        adds. What has gathered is forgotten only once it is committed. Raises Fenced."""
        with self._house.database.write() as session:
            yield Turn(session, self._write(session, more))
            session.commit()
        self._events, self._rows = [], {}
        self._resolved = None
        self.has_news = self._is_unsure = False

    def _flush(self) -> Wish:
        with self.transaction() as turn:
            return turn.wish

    def _write(self, session: Session, more: dict[str, Any]) -> Wish:
        values: dict[str, Any] = dict(more)
        if self.has_news:
            values |= {"progress": self._progress, "metrics": self._metrics}
        if self._resolved is not None:
            values |= {"resolved": self._resolved, "started_at": self._started_at}
        row = session.execute(leases.beat_job(self.job_id, self.fence, **values)).one_or_none()
        if row is None:
            raise Fenced(self.job_id)
        if self._rows:
            session.execute(upsert_metrics(session, list(self._rows.values())))
        if self._events and not (self._is_unsure and self._is_told(session)):
            job = self.lock(session)
            for kind, data, at in self._events:
                session.add(jobs.add_event(job, kind, data, at))
        return Wish(*row)

    def _is_told(self, session: Session) -> bool:
        """Whether the first of the events that have gathered is there: then all of them are."""
        kind, _, at = self._events[0]
        return any(event.at == at for event in session.scalars(jobs.events_of_type(self.job_id, kind)))

    def lock(self, session: Session) -> Job:
        """The job's row, held. Raises Fenced."""
        job = session.scalar(jobs.lock_job(self.job_id, fence=self.fence))
        if job is None:
            raise Fenced(self.job_id)
        return job

    # The end of an attempt

    def left(self, reason: str) -> None:
        """The child left before the end: to where the owner wants the job now, or back to the queue."""

        def write() -> None:
            with self.transaction() as turn:
                job = self.lock(turn.session)
                is_resumed = job.wanted == Wanted.RUN and reason in BY_OWNER.values()
                said = "resumed by its owner" if is_resumed else BY_OWNER.get(Wanted(job.wanted), reason)
                turn.session.add(jobs.leave(job, said, utc_now()))

        self.patiently(write)

    def fail(self, code: JobErrorCode, message: str, hint: str) -> None:
        log.info("job_failed", job=self.job_id, code=code, message=message)

        def write() -> None:
            with self.transaction() as turn:
                job = self.lock(turn.session)
                job.error = msgspec.to_builtins(JobError(code, message, hint))
                turn.session.add(jobs.move(job, JobState.FAILED, message, utc_now()))

        self.patiently(write)

    def lost(self, reason: str) -> None:
        settings = self._house.settings

        def write() -> None:
            with self.transaction() as turn:
                event = leases.lose_job(
                    self.lock(turn.session),
                    reason,
                    utc_now(),
                    max_losses=settings.max_losses,
                    backoff_s=settings.retry_backoff_s,
                )
                turn.session.add(event)

        self.patiently(write)

    # Checkpoints

    def mark_corrupt(self, row: Checkpoint, reason: str) -> None:
        log.error("checkpoint_corrupt", job=self.job_id, checkpoint=row.id, reason=reason)
        self.warned(f"checkpoint {row.id} at step {row.step} is damaged ({reason}); the one before is used")
        with self.transaction() as turn:
            turn.session.execute(checkpoints.set_checkpoint_state(row.id, "corrupt"))
            job = self.lock(turn.session)
            if job.best is not None and job.best["checkpoint"] == row.id:
                job.best = None  # else what comes would have to beat a value that no weights have

    def rewind(self, row: Checkpoint | None) -> None:
        """A later attempt goes on from a checkpoint, or from the start: what lies after it did not happen."""
        step, epoch = (row.step, row.epoch) if row is not None else (0, 0)
        steps = self._progress.get("steps") or 0
        self._progress |= {"step": step, "epoch": epoch, "fraction": step / steps if steps else 0.0}
        if row is not None:  # what is saved within an epoch tells its training loss alone
            self._metrics = dict(row.metrics) if MEASURED in row.metrics else self._metrics | row.metrics
        self._event("rewound", {"step": step, "epoch": epoch, "checkpoint": row.id if row else None})
        with self.transaction() as turn:
            turn.session.execute(jobs.forget_metrics_after(self.job_id, step))

    def _measured(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        self.has_news = True
        self._metrics |= finite(metrics)
        now = utc_now()
        for name, value in metrics.items():
            self._rows[name, step] = {
                "job_id": self.job_id,
                "name": name,
                "step": step,
                "epoch": epoch,
                "value": value if math.isfinite(value) else None,
                "non_finite": None if math.isfinite(value) else str(value),
                "at": now,
            }

    def _event(self, kind: str, data: dict[str, Any], at: datetime | None = None) -> None:
        self.has_news = True
        self._events.append((kind, data, at or utc_now()))


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """NaN never leaves as NaN: JSON has none."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def upsert_metrics(session: Session, rows: list[dict[str, Any]]) -> Insert:
    """A name at a step is one row, however often it is reported."""
    dialect = session.get_bind().dialect.name
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(Metric).values(rows)
    changed = {name: insert.excluded[name] for name in ("epoch", "value", "non_finite", "at")}
    return insert.on_conflict_do_update(index_elements=["job_id", "name", "step"], set_=changed)
