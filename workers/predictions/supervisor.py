"""One attempt at a batch prediction: starts the child, stores the parts it writes, and ends it when that is
wanted.

The supervisor is the only writer. A write that touches no row means that another attempt owns the work.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db.models import BatchPrediction, PredictionPart
from core.db.statements import batch_predictions as statements
from core.storage.durable import StoredFile, is_full
from core.storage.keys import batch_folder
from modelyard.specs import JobErrorCode, Wanted
from workers.finish import clear_earlier, clear_scratch
from workers.house import House
from workers.ledger import BY_OWNER, Fenced, Wish
from workers.orders import Unavailable
from workers.predictions import messages
from workers.predictions.ledger import Ledger
from workers.predictions.messages import AnyReport, BatchOrder, Committed, Join, Joined, Piece
from workers.predictions.orders import order_of
from workers.predictions.process import BatchChild

log = structlog.get_logger()

T = TypeVar("T")

#: What is wished is read at least so often: a cancel is obeyed within this and a moment.
LISTEN_S = 0.5
#: Parts that are damaged are made again by another child, so often in an attempt.
TRIES = 3
#: A move of files is looked after this often.
MOVE_S = 0.05

FREE_SPACE = "free space where MODELYARD_STORAGE_URL points, and post it again"


class Left(Exception):
    """The work stopped here, and its row says so: its owner, the operator or a job of a higher priority
    wanted that."""


def supervise(house: House, batch: BatchPrediction, slots: list[int]) -> None:
    """Runs one claimed batch prediction until it ends, is lost, or the worker drains. Raises nothing."""
    bound = log.bind(batch=batch.id, fence=batch.fence)
    scratch = house.settings.scratch() / "predictions" / batch.id / str(batch.fence)
    ledger = Ledger(house, batch)
    try:
        bound.info("batch_attempt_starts", attempt=batch.attempt)
        clear_earlier(scratch)
        ledger.started()
        for _ in range(TRIES):
            order = order_of(house, batch, ledger, scratch, slots)
            if Conversation(house, batch, ledger, order).follow():
                return
            clear_scratch(scratch)
        ledger.lost("parts were damaged each time that they were made")
    except Left as left:
        bound.info("batch_left", reason=str(left))
    except Unavailable as gone:
        ledger.fail(gone.code, str(gone), gone.hint)
    except Fenced:
        bound.warning("batch_attempt_fenced", hint="another attempt owns it")
    except Exception as error:
        bound.exception("batch_supervisor_failed")
        _give_up(ledger, error)
    finally:
        clear_scratch(scratch)
        bound.info("batch_attempt_ends")


def _give_up(ledger: Ledger, error: Exception) -> None:
    """Our own failure, not the child's. Where even this can't be written the lease runs out."""
    try:
        if isinstance(error, OSError) and is_full(error):
            ledger.fail(JobErrorCode.STORAGE_FULL, f"a file could not be stored: {error}", FREE_SPACE)
        else:
            ledger.lost(f"the worker failed: {type(error).__name__}: {error}")
    except (Fenced, SQLAlchemyError):
        log.exception("batch_left_to_the_sweep", batch=ledger.batch_id)


class Conversation:
    """With one child, from its first report to the end of either."""

    def __init__(self, house: House, batch: BatchPrediction, ledger: Ledger, order: BatchOrder) -> None:
        self.house, self.ledger = house, ledger
        self.folder = f"{batch_folder(batch.id)}/{batch.fence}"
        self.batch_id = batch.id
        self.order = order
        self.is_over = False
        self.goes_again = False
        self.flushed_at = self.heard_at = time.monotonic()

    def follow(self) -> bool:
        """Until the child or the work has ended; False where another child is to go on from the parts that
        are left. Raises Left, Fenced."""
        with contextlib.ExitStack() as ended:
            self.mover = ThreadPoolExecutor(1, thread_name_prefix="store")
            ended.callback(self.mover.shutdown)
            self.child = BatchChild(self.order)
            ended.callback(self.child.end)  # first: what is being moved may take longer
            while not self.is_over:
                self.child.wait(max(0.0, self.flushed_at + LISTEN_S - time.monotonic()))
                was_alive = self.child.alive  # before reading: a dead child's last words are all there
                for report in self.child.reports():
                    self.heard_at = time.monotonic()
                    self.take(report)
                self.flush_when_due()
                self.watch()
                if not was_alive and not self.is_over:
                    self.ledger.lost(f"the predicting process ended with {self.child.exit_reason}")
                    self.is_over = True
        return not self.goes_again

    def take(self, report: AnyReport) -> None:
        match report:
            case messages.Opened(rows):
                self.ledger.opened(rows)
            case messages.Progressed():
                self.ledger.progressed(report)
            case messages.Written(piece):
                self.keep(piece)
            case messages.Answered():
                self.join()
            case messages.Joined():
                self.finish(report)
            case messages.PartDamaged(start, message):
                log.error("part_damaged", batch=self.batch_id, start=start, reason=message)
                self.again_from(start)
            case messages.Failed(code, message, hint):
                self.ledger.fail(code, message, hint)
                self.is_over = True
            case _:
                assert_never(report)

    # Files

    def keep(self, piece: Piece) -> None:
        key = f"{self.folder}/{piece.start:012}.arrow"
        with self.stored({key: piece.file}):
            self.ledger.keep(piece, key)
        self.child.tell(Committed())

    def join(self) -> None:
        """Tells the child all parts; where a file of one is gone, they are made again from there."""
        with self.house.database.read() as session:
            parts = list(session.scalars(statements.parts_of(self.batch_id)))
        pieces = []
        for part in parts:
            try:
                pieces.append(self.beside(partial(self._piece, part)))
            except FileNotFoundError:
                self.again_from(part.start)
                return
        self.child.tell(Join(pieces))

    def _piece(self, part: PredictionPart) -> Piece:
        path = self.house.storage.fetch(part.key)
        file = StoredFile(str(path), part.size, part.sha256)
        return Piece(part.start, part.rows, part.errors, file)

    def again_from(self, start: int) -> None:
        self.ledger.forget_from(start)
        self.goes_again = self.is_over = True

    def finish(self, joined: Joined) -> None:
        """Files first, then the row."""
        keys = {which: f"{self.folder}/{which}.{self.order.format}" for which in ("output", "errors")}
        results = {
            "output": _result(keys["output"], joined.output, joined.output_rows),
            "errors": _result(keys["errors"], joined.errors, joined.errors_rows),
        }
        with self.stored({keys["output"]: joined.output, keys["errors"]: joined.errors}):
            self.ledger.succeed(results)
        self.is_over = True

    @contextlib.contextmanager
    def stored(self, files: dict[str, StoredFile]) -> Iterator[None]:
        """Around the write of the row that names them: where there is none, the files go again."""
        try:
            self.beside(partial(self._adopt, files))
            yield
        except (Fenced, Left):
            self.mover.submit(self._delete, list(files))
            raise

    def _adopt(self, files: dict[str, StoredFile]) -> None:
        for key, file in files.items():
            self.house.storage.adopt(key, Path(file.path))

    def _delete(self, keys: list[str]) -> None:
        for key in keys:
            self.house.storage.delete(key)

    def beside(self, work: Callable[[], T]) -> T:
        """In another thread, while this one beats: a slow storage costs no lease and delays no stop."""
        moved: Future[T] = self.mover.submit(work)
        while not futures.wait([moved], MOVE_S).done:
            self.heard_at = time.monotonic()  # a child that waits for its part does not hang
            self.flush_when_due()
        return moved.result()

    # Stops

    def flush_when_due(self) -> None:
        if not self.is_over and time.monotonic() >= self.flushed_at + LISTEN_S:
            self.flushed_at = time.monotonic()
            self.look(self.ledger.flush())

    def look(self, wish: Wish) -> None:
        """What was answered since the last part is answered again: nothing is asked of the child."""
        reason = self.reason_to_stop(wish)
        if reason is not None:
            self.ledger.left(reason)  # now: a file that is on its way may take longer
            raise Left(reason)

    def reason_to_stop(self, wish: Wish) -> str | None:
        if wish.wanted == Wanted.CANCEL:
            return BY_OWNER[Wanted.CANCEL]
        if self.house.draining.is_set():
            return "drained"
        return f"preempted by {wish.preempted_by}" if wish.preempted_by else None

    def watch(self) -> None:
        """A child that says nothing for too long hangs."""
        stall_s = self.house.settings.stall_s
        if self.is_over or time.monotonic() - self.heard_at < stall_s:
            return
        log.error(
            "batch_child_stalled", batch=self.batch_id, hint="where its threads stand follows in this log"
        )
        self.child.write_stacks()
        self.ledger.fail(
            JobErrorCode.STALLED,
            f"nothing was read or answered for {stall_s:g} s",
            "the worker's log shows where each of its threads stood; rows that take longer need a larger "
            "MODELYARD_STALL_S",
        )
        self.is_over = True


def _result(key: str, file: StoredFile, rows: int) -> dict[str, Any]:
    return {"key": key, "rows": rows, "size": file.size, "sha256": file.sha256}
