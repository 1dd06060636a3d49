"""One attempt of a job: starts the child, writes down what it reports, and stops it when that is wanted.

The supervisor is the only writer. Every write carries the fence; one that touches no row means that
another attempt owns the job: the child is killed and nothing more is written.
"""

import time
from dataclasses import dataclass, field
from typing import Any, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db.models import Job
from core.storage.durable import is_full
from modelyard.specs import JobErrorCode, Wanted
from workers import finish, messages, orders, ranks, storing
from workers.board.archive import Archive
from workers.children import Child
from workers.house import House
from workers.ledger import BY_OWNER, Fenced, Ledger, Wish
from workers.messages import AnyReport, Committed, Noted, Order, Register, Saved, Stop
from workers.orders import Unavailable
from workers.ranks import Ranks
from workers.storing import Storing

log = structlog.get_logger()

#: At most four transactions a second write progress; every write is also a beat and reads what is wished.
FLUSH_S = 0.25
#: A quiet child (loading data, a long step) is still looked after this often, so that a cancel is heard.
LISTEN_S = 1.0
#: How long a child may take to leave its loop after a Stop before it is killed; and where it saves first.
STOP_GRACE_S = 10.0
SAVE_GRACE_S = 20.0


def supervise(house: House, job: Job, slots: list[int]) -> None:
    """Runs one claimed job, which holds these slots, until it ends, is lost, or the worker drains. Raises
    nothing."""
    bound = log.bind(job=job.id, fence=job.fence)
    scratch = house.settings.scratch() / "jobs" / job.id / str(job.fence)
    ledger = Ledger(house, job)
    try:
        bound.info("attempt_starts", attempt=job.attempt)
        finish.clear_earlier(scratch)
        if job.attempt > 1:
            finish.collect_orphans(house, ledger)
        order = orders.order_of(house, job, ledger, scratch, slots)
        while (changes := converse(house, job, ledger, order)) is not None:
            finish.clear_scratch(scratch)
            order = orders.order_again(house, job, ledger, order, changes)
    except Unavailable as gone:
        ledger.fail(gone.code, str(gone), gone.hint)
    except Fenced:
        bound.warning("attempt_fenced", hint="another attempt owns the job")
    except Exception as error:
        bound.exception("supervisor_failed")
        give_up(ledger, error)
    finally:
        finish.clear_scratch(scratch)
        bound.info("attempt_ends")


def converse(house: House, job: Job, ledger: Ledger, order: Order) -> dict[str, Any] | None:
    """From a child's start to its end. Where another is to go back, what changes in its order."""
    child = ranks.start(order)
    try:
        return Conversation(house, job, ledger, child).follow()
    finally:
        child.end()


def give_up(ledger: Ledger, error: Exception) -> None:
    """Our own failure, not the child's. Where even this cannot be written the lease runs out, and the
    sweep gives the job to another."""
    try:
        if isinstance(error, OSError) and is_full(error):
            ledger.fail(JobErrorCode.STORAGE_FULL, f"a file could not be stored: {error}", FREE_SPACE)
        else:
            ledger.lost(f"the worker failed: {type(error).__name__}: {error}")
    except (Fenced, SQLAlchemyError):
        log.exception("attempt_left_to_the_sweep", job=ledger.job_id)


FREE_SPACE = "free space where MODELYARD_STORAGE_URL points, and post the job again"


@dataclass
class Conversation:
    """With one child, from its first report to the end of either.

    `stop_reason` is why it was told to leave, `stop_before` until when it may take. `storing` is the
    checkpoint on its way into storage.
    """

    house: House
    job: Job
    ledger: Ledger
    child: Child | Ranks
    has_started: bool = False
    stop_reason: str | None = None
    stop_before: float = 0.0
    storing: Storing | None = None
    again: dict[str, Any] | None = None
    is_over: bool = False
    flushed_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    board: Archive = field(init=False)

    def __post_init__(self) -> None:
        self.board = Archive(self.house, self.job)

    def follow(self) -> dict[str, Any] | None:
        """Until the job or the child has ended. Where another child is to go back to the last checkpoint,
        what changes in its order. Raises Fenced where another attempt owns the job."""
        try:
            while not self.is_over:
                self.wait()
                was_alive = self.child.alive  # asked before reading: a dead child's last words are all there
                for report in self.child.reports():
                    self.heard_at = time.monotonic()
                    if not self.is_over:  # another rank may have said the same
                        self.take(report)
                self.store()
                self.flush_when_due()
                self.watch()
                if not was_alive and not self.is_over:
                    self.child_died()
            self.board.store()
        finally:
            if self.storing is not None:
                self.storing.abandon()
        return self.again

    def wait(self) -> None:
        others = [] if self.storing is None else [self.storing.done]
        self.child.wait(max(0.0, self.due_at() - time.monotonic()), *others)

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
                self.has_started = True
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
                self.keep(report)
            case messages.Trained(reason):
                self.ledger.ended = reason
                self.child.tell(self.choose())
            case messages.Verified():
                self.board.store()  # first: who sees the job succeed finds all of it
                finish.register(self.house, self.ledger, report)
                self.is_over = True
            case messages.Stopped():
                self.leave()
            case messages.WentAstray():
                self.ledger.went_astray(report.message)
                self.go_back({"careful": True})
            case messages.TooLarge():
                self.ledger.noted(Noted("out_of_memory", report.data))
                self.go_back({"pieces": report.pieces})
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
            files = orders.intact(self.house, self.ledger, row)
            if files is not None:
                return Register(*files)

    def go_back(self, changes: dict[str, Any]) -> None:
        if self.stop_reason is not None:
            self.leave()
        else:
            self.again, self.is_over = changes, True

    # Checkpoints

    def keep(self, saved: Saved) -> None:
        self.storing = Storing(self.house.storage, saved, finish.checkpoint_row(self.ledger, saved))

    def store(self) -> None:
        """Writes the row of a checkpoint whose files are in storage, and tells the child."""
        if self.storing is None or self.is_over:
            return
        self.heard_at = time.monotonic()  # a child that waits for its checkpoint does not hang
        if not self.storing.is_done:
            return
        lack = self.storing.lacks_room()
        if lack is not None:
            self.try_again(self.storing, lack)
            return
        stored, self.storing = self.storing, None
        stored.close()
        wish = finish.commit_checkpoint(self.house, self.ledger, stored.row)
        self.child.tell(Committed(stored.saved.step))
        self.board.store_now_and_then()
        self.look(wish)

    def try_again(self, stored: Storing, lack: OSError) -> None:
        row = stored.row
        needed = row.weights_bytes + row.state_bytes
        message = f"the checkpoint of step {row.step} needs {needed:,} bytes in storage: {lack.strerror}"
        self.ledger.lacked_room({"message": message, "step": row.step, "needed_bytes": needed})
        if stored.tries < storing.TRIES:
            stored.try_again()
        else:
            self.ledger.fail(JobErrorCode.STORAGE_FULL, message, FREE_SPACE)
            self.is_over = True

    # Stops

    def look(self, wish: Wish) -> None:
        """At what the owner and the operator wish."""
        reason = self.reason_to_stop(wish)
        is_cancel = wish.wanted == Wanted.CANCEL
        if self.stop_reason is not None and time.monotonic() > self.stop_before:
            self.leave()  # it did not leave in time: the caller kills it
        elif reason is None or self.stop_reason == reason:
            pass
        elif not self.has_started:
            self.stop_reason = reason
            self.leave()  # no step was made that a checkpoint could keep
        elif self.stop_reason is None or is_cancel:
            self.stop_reason = reason
            self.stop_before = time.monotonic() + (STOP_GRACE_S if is_cancel else SAVE_GRACE_S)
            self.child.tell(Stop(save=not is_cancel))

    def reason_to_stop(self, wish: Wish) -> str | None:
        if wish.wanted != Wanted.RUN:
            return BY_OWNER[Wanted(wish.wanted)]
        if self.house.draining.is_set():
            return "drained"
        return f"preempted by {wish.preempted_by}" if wish.preempted_by else None

    def leave(self) -> None:
        """Where the owner wants the job, else back to the queue."""
        self.ledger.left(self.stop_reason or "stopped")
        self.is_over = True

    # Ends that the child does not tell of

    def watch(self) -> None:
        """A child that says nothing for too long hangs: it says where, and the job fails."""
        stall_s = self.house.settings.stall_s
        if self.is_over or time.monotonic() - self.heard_at < stall_s:
            return
        log.error("child_stalled", job=self.job.id, hint="where its threads stand follows in this log")
        self.child.write_stacks()
        self.ledger.fail(
            JobErrorCode.STALLED,
            f"the training said nothing for {stall_s:g} s: no step, no batch of an evaluation, no row read",
            "the worker's log shows where each of its threads stood; a step that takes longer than "
            "MODELYARD_STALL_S needs a larger one",
        )
        self.is_over = True

    def child_died(self) -> None:
        """Without a last word: killed from outside, out of memory, or a crash in native code."""
        if self.storing is not None:  # what it had saved is complete
            self.storing.wait()
            self.store()
        if self.is_over:
            return
        if self.stop_reason is not None:
            self.leave()
        else:
            self.ledger.lost(f"the training process ended with {self.child.exit_reason}")
            self.is_over = True
