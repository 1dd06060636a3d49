"""The helper: standing children in which specs are checked and answers explained, each killed at its deadline
and replaced.

A hostile spec costs a child, never the service: a child has a deadline, a bound on its memory, one thread
and a low claim on the processor. It is forked in milliseconds from a server that has torch imported, warm.
What a child answers is the caller's to say: a function from bytes to bytes.
"""

import asyncio
import contextlib
import multiprocessing
import os
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import structlog

from core.errors import Invalid, Unavailable
from core.nets import plugins
from core.settings import Settings
from modelyard.specs import ProblemError

#: Who comes when so many wait is told to come again.
MAX_WAITING = 64

#: Who has waited for so long for a child is told to come again.
MAX_WAIT_S = 30.0

#: A child that the machine gives less than half a core has so many deadlines by the clock.
PATIENCE = 5

#: A child that was born before the fork server was warm, or beside a busy machine, may need seconds.
START_S = 60.0

#: While such a child is waited for, its processor time is read this often.
LOOK_S = 0.05

#: Behind everything that serves or trains; a plan is short.
NICENESS = 10

_CONTEXT = multiprocessing.get_context("forkserver")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

log = structlog.stdlib.get_logger()


class Overdue(Exception):
    """The child has not answered within its deadline."""


#: Runs in the child, found there by its name.
Answer: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Errand:
    """What a helper is for, in the words of logs and refusals, and within what: seconds, and bytes of address
    space beyond those a child has at its birth. One that is not `is_warm` has no child before it is asked."""

    name: str
    doing: str
    one: str
    remedy: str
    deadline_s: float
    memory_bytes: int
    processes: int
    is_warm: bool = True


def plans(settings: Settings) -> Errand:
    return Errand(
        name="plan",
        doing="Checking this spec",
        one="a plan",
        remedy="Make it smaller: fewer layers, fewer transforms, smaller sizes.",
        deadline_s=settings.plan_deadline_s,
        memory_bytes=settings.plan_memory_bytes,
        processes=settings.plan_processes,
    )


def explanations(settings: Settings) -> Errand:
    return Errand(
        name="explanation",
        doing="Explaining these rows",
        one="an explanation",
        remedy="Send fewer rows, or ask for saliency.",
        deadline_s=settings.explain_deadline_s,
        memory_bytes=settings.explain_memory_bytes,
        processes=1,
        is_warm=False,
    )


@dataclass(frozen=True)
class Work:
    """What a child does, and within what: seconds, and bytes of address space beyond those it has.
    `plugins` is the setting of that name."""

    answer: Answer
    deadline_s: float
    memory_bytes: int
    plugins: str = ""
    name: str = "plan"


@dataclass(frozen=True)
class _Asked:
    payload: bytes
    reply: "Future[bytes]"
    until: float


class Helper:
    """One keeper thread a child: it starts the child, hands it one request at a time, and replaces it."""

    def __init__(self, errand: Errand, answer: Answer, plugins: str = "") -> None:
        self._errand = errand
        self._work = Work(answer, errand.deadline_s, errand.memory_bytes, plugins, errand.name)
        self._asked: queue.Queue[_Asked | None] = queue.Queue(MAX_WAITING)
        self._keepers = [
            # Daemons: nobody who stops the service waits for a child that is just being born.
            threading.Thread(target=self._keep, name=f"{errand.name}-{number}", daemon=True)
            for number in range(errand.processes)
        ]

    def start(self) -> None:
        """Returns at once. Requests that come before the first child is ready wait for it."""
        start_fork_server()
        for keeper in self._keepers:
            keeper.start()

    def close(self) -> None:
        """Whoever still waits is told that the service stops."""
        with contextlib.suppress(queue.Empty):
            while True:
                asked = self._asked.get_nowait()
                if asked is not None and asked.reply.set_running_or_notify_cancel():
                    _fail(asked, Unavailable("The service stops; send the request again."))
        for _ in self._keepers:
            self._asked.put_nowait(None)

    async def ask(self, payload: bytes) -> bytes:
        """The child's answer. Raises Invalid where the deadline passed or the request ended two children,
        Unavailable where too many wait."""
        reply: Future[bytes] = Future()
        try:
            self._asked.put_nowait(_Asked(payload, reply, time.monotonic() + MAX_WAIT_S))
        except queue.Full:
            raise Unavailable(
                f"{MAX_WAITING} requests wait for {self._errand.one}; send this one again in a moment.",
                code=f"{self._errand.name}s_busy",
                retry_after_s=2,
            ) from None
        return await asyncio.wrap_future(reply)

    def _keep(self) -> None:
        child = _start(self._work) if self._errand.is_warm else None
        while (asked := self._asked.get()) is not None:
            # A caller who left before a child was free is passed over.
            if not asked.reply.set_running_or_notify_cancel():
                continue
            if time.monotonic() > asked.until:
                message = (
                    f"No process was free for {self._errand.one} within {MAX_WAIT_S:g} s; send it again."
                )
                _fail(asked, Unavailable(message))
                continue
            child = self._serve(child, asked)
        if child is not None:
            child.end()

    def _serve(self, child: "Child | None", asked: _Asked) -> "Child | None":
        """Answers one request; the child to go on with."""
        for _ in range(2):  # what ended a child once may have been the machine; twice, it is the request
            child = child or _start(self._work)
            if child is None:
                _fail(asked, Unavailable(f"There is no {self._errand.name} at the moment; send it again."))
                return None
            try:
                reply = child.ask(asked.payload)
            except Overdue:
                child.end()
                log.warning(f"{self._errand.name}_overdue", deadline_s=self._errand.deadline_s)
                _fail(asked, _overdue(self._errand))
                return _start(self._work)
            except (OSError, EOFError):
                reason = child.end()
                child = None
                log.error(f"{self._errand.name}_child_died", reason=reason)
            else:
                asked.reply.set_result(reply)
                return child
        _fail(asked, _deadly(self._errand, reason))
        return _start(self._work)


class Child:
    """A forked process and the pipe to it. Raises OSError or EOFError where it cannot be had."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, work), name=work.name, daemon=True)
        self._process.start()
        theirs.close()  # ours is the only other end: the child's death is an EOF here
        try:
            if not self._connection.poll(START_S):
                raise TimeoutError(f"a child was not ready within {START_S:g} s")
            self._connection.recv_bytes()
        except (OSError, EOFError):
            self.end()
            raise

    def ask(self, payload: bytes) -> bytes:
        """Raises Overdue, or EOFError where the child ends."""
        deadline_s = self._work.deadline_s
        asked_at = time.monotonic()
        used_before_s = self._used_s()
        self._connection.send_bytes(payload)
        if not self._connection.poll(deadline_s):
            # By the clock it is over. One that the machine did not let run may have what it was promised.
            while not self._connection.poll(LOOK_S):
                is_starved = self._used_s() - used_before_s < deadline_s / 2
                if not is_starved or time.monotonic() - asked_at > PATIENCE * deadline_s:
                    raise Overdue
        try:
            return self._connection.recv_bytes()
        except EOFError as error:
            self._process.join(timeout=LOOK_S)
            if self._process.exitcode == -signal.SIGPROF:  # the kernel saw first that it is over
                raise Overdue from error
            raise

    def end(self) -> str:
        """Kills and reaps; how it ended."""
        self._process.join(timeout=0)
        if (code := self._process.exitcode) is None:
            self._process.kill()
            self._process.join()
            code = self._process.exitcode
        self._connection.close()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """From another thread: who asks it sees it end."""
        self._process.kill()

    def _used_s(self) -> float:
        """Processor time so far. Raises FileNotFoundError, an OSError, where it has ended."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def start_fork_server() -> None:
    """Where it runs already this does nothing. Returns at once; its first child waits until it is warm."""
    # Beside another busy process, threads that spin for each other cost far more than ones that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _CONTEXT.set_forkserver_preload(["service.warmed"])
    forkserver.ensure_running()


def _start(work: Work) -> Child | None:
    try:
        return Child(work)
    except (OSError, EOFError) as error:
        log.error(f"{work.name}_child_not_started", reason=str(error))
        return None


def _serve(connection: Connection, work: Work) -> None:
    """The child: one request after another until the service is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, whose end is an EOF here
    os.nice(NICENESS)
    plugins.load(work.plugins)  # before the bounds: a package is the operator's, not the spec's
    _bound_memory(work.memory_bytes)
    with contextlib.suppress(OSError, EOFError):
        connection.send_bytes(b"ready")
        while True:
            payload = connection.recv_bytes()
            # The service kills at the deadline; should it be gone, the kernel does, by processor time.
            signal.setitimer(signal.ITIMER_PROF, PATIENCE * work.deadline_s)
            reply = work.answer(payload)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(reply)
    os._exit(0)  # nothing to tidy, and an interpreter with torch takes most of a second to leave


def _bound_memory(memory_bytes: int) -> None:
    """RLIMIT_AS above what the process has: torch alone has mapped gigabytes that it never touches."""
    mapped_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + memory_bytes,) * 2)


def _fail(asked: _Asked, error: Exception) -> None:
    asked.reply.set_exception(error)


def _overdue(errand: Errand) -> Invalid:
    detail = (
        f"{errand.doing} took longer than the {errand.deadline_s:g} s that {errand.one} may take: it is too "
        f"costly. {errand.remedy}"
    )
    code = f"{errand.name}_deadline"
    return Invalid(detail, code=code, errors=[ProblemError("", code, detail)])


def _deadly(errand: Errand, reason: str) -> Invalid:
    detail = (
        f"{errand.doing} ended the process that does it, twice ({reason}); nothing else is affected. Look "
        "for sizes beyond what torch can take, and make them smaller."
    )
    code = f"{errand.name}_crashed"
    return Invalid(detail, code=code, errors=[ProblemError("", code, detail)])
