"""What one attempt at a batch prediction writes to the database. Every write is fenced."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.db.models import BatchPrediction, PredictionPart, utc_now
from core.db.statements import batch_predictions as statements
from modelyard.specs import BatchProgress, BatchState, JobError, JobErrorCode, Wanted
from workers.house import House
from workers.ledger import BY_OWNER, Fenced, Wish
from workers.predictions.messages import Piece, Progressed

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 0.5


@dataclass(frozen=True)
class Turn:
    """A transaction under way, and the row in it, held."""

    session: Session
    batch: BatchPrediction


class Ledger:
    def __init__(self, house: House, batch: BatchPrediction) -> None:
        self._house = house
        self.batch_id, self.fence = batch.id, batch.fence
        self._progress = msgspec.convert(batch.progress, BatchProgress)
        self._began: tuple[float, int] | None = None
        self.has_news = False

    # What the child says

    def begins(self, rows_done: int, errors: int) -> None:
        """A child goes on from so many rows."""
        self._began = None
        self._now_at(rows_done, errors)

    def opened(self, rows: int) -> None:
        self._progress = msgspec.structs.replace(self._progress, rows=rows)
        self._began = time.monotonic(), self._progress.rows_done
        self._now_at(self._progress.rows_done, self._progress.errors)

    def progressed(self, report: Progressed) -> None:
        self._now_at(report.rows_done, report.errors)

    def _now_at(self, rows_done: int, errors: int) -> None:
        self.has_news = True
        rows, rate = self._progress.rows, None
        if self._began is not None:
            since, first = self._began
            rate = (rows_done - first) / max(1e-3, time.monotonic() - since)
        fraction = 0.0 if rows is None else rows_done / rows if rows else 1.0
        self._progress = BatchProgress(rows_done, rows, errors, fraction, rate)

    # Writing

    def flush(self) -> Wish:
        """Writes what has gathered, beats, and returns what is wished. Raises Fenced."""
        return self.patiently(self._flush)

    def _flush(self) -> Wish:
        values = {"progress": msgspec.to_builtins(self._progress)} if self.has_news else {}
        with self._house.database.write() as session:
            row = session.execute(statements.beat(self.batch_id, self.fence, **values)).one_or_none()
            if row is None:
                raise Fenced(self.batch_id)
            session.commit()
        self.has_news = False
        return Wish(*row)

    def patiently(self, write: Callable[[], T]) -> T:
        """Tries again while the database is away, for half a lease."""
        give_up_at = time.monotonic() + self._house.settings.lease_s / 2
        while True:
            try:
                return write()
            except OperationalError as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("database_away", batch=self.batch_id, reason=str(error.orig))
                time.sleep(RETRY_S)

    def started(self) -> None:
        def write(turn: Turn) -> None:
            turn.batch.started_at = turn.batch.started_at or utc_now()

        self._write(write)

    def keep(self, piece: Piece, key: str) -> None:
        """The part's file is in storage: now its row. What was lost before it counts no more."""
        part = PredictionPart(
            batch_id=self.batch_id,
            start=piece.start,
            rows=piece.rows,
            errors=piece.errors,
            key=key,
            size=piece.file.size,
            sha256=piece.file.sha256,
        )

        def write(turn: Turn) -> None:
            turn.session.merge(part)
            turn.batch.losses = 0

        self._write(write)

    def forget_from(self, start: int) -> None:
        self._write(lambda turn: turn.session.execute(statements.forget_parts(self.batch_id, since=start)))

    # The end of an attempt

    def succeed(self, results: dict[str, Any]) -> None:
        def write(turn: Turn) -> None:
            turn.batch.results = results
            turn.batch.progress = msgspec.to_builtins(msgspec.structs.replace(self._progress, fraction=1.0))
            statements.move(turn.batch, BatchState.SUCCEEDED, "every row is answered or told", utc_now())

        try:
            self._write(write)
        except Fenced:
            if not self._has_succeeded_with(results):  # a commit may reach a database that can't say so
                raise

    def _has_succeeded_with(self, results: dict[str, Any]) -> bool:
        with self._house.database.read() as session:
            return session.get_one(BatchPrediction, self.batch_id).results == results

    def left(self, reason: str) -> None:
        """To where the owner wants it now, or back to the queue."""

        def write(turn: Turn) -> None:
            is_cancelled = turn.batch.wanted == Wanted.CANCEL
            statements.leave(turn.batch, BY_OWNER[Wanted.CANCEL] if is_cancelled else reason, utc_now())

        self._write(write)

    def fail(self, code: JobErrorCode, message: str, hint: str) -> None:
        log.info("batch_prediction_failed", batch=self.batch_id, code=code, message=message)

        def write(turn: Turn) -> None:
            turn.batch.error = msgspec.to_builtins(JobError(code, message, hint))
            statements.move(turn.batch, BatchState.FAILED, message, utc_now())

        self._write(write)

    def lost(self, reason: str) -> None:
        settings = self._house.settings

        def write(turn: Turn) -> None:
            statements.lose(
                turn.batch,
                reason,
                utc_now(),
                max_losses=settings.max_losses,
                backoff_s=settings.retry_backoff_s,
            )

        self._write(write)

    def _write(self, write: Callable[[Turn], object]) -> None:
        """In one fenced transaction."""

        def attempt() -> None:
            with self._turn() as turn:
                write(turn)

        self.patiently(attempt)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Turn]:
        with self._house.database.write() as session:
            batch = session.scalar(statements.lock(self.batch_id, fence=self.fence))
            if batch is None:
                raise Fenced(self.batch_id)
            batch.beat += 1
            yield Turn(session, batch)
            session.commit()
