"""One process of the stack: started, watched, started again with a growing pause, stopped.

All of it runs on the main thread: Linux sends the death signal when the *thread* that forked ends.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOG_LIMIT_BYTES = 16 * 1024 * 1024
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: A part that ran for so long is taken as well again: its next death waits the first pause.
WELL_AFTER_S = 60.0

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_libc = ctypes.CDLL(None, use_errno=True)


class StopRequested(Exception):
    """SIGTERM, SIGINT (Ctrl-C) or SIGHUP arrived."""


def block_signals() -> None:
    """From here on signals wait until `pause` takes them: nothing is interrupted half-done."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS | {signal.SIGCHLD})


def pause(seconds: float) -> None:
    """Sleep, or less if a child ends. Raises StopRequested when asked to stop."""
    taken = signal.sigtimedwait(STOP_SIGNALS | {signal.SIGCHLD}, max(seconds, 0))
    if taken is None or taken.si_signo == signal.SIGCHLD:
        return
    if taken.si_signo == signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return  # started under nohup
    raise StopRequested


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the child gets the signal when its parent ends, even by SIGKILL."""
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended between the fork and the line above
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return in_child


@dataclass
class Part:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    start_again_at: float | None = None
    next_pause_s: float = field(default=FIRST_PAUSE_S)

    def start(self) -> None:
        """Its own session, so that Ctrl-C reaches only us and we choose the order of ending."""
        _bound(self.log)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )
        self.started_at = time.monotonic()
        self.start_again_at = None

    def ended(self) -> int | None:
        """The exit status once it has ended (negative: the signal that ended it)."""
        return self.process.poll() if self.process else None

    def revive(self) -> None:
        """Start it again after its pause if it has ended; say so."""
        status = self.ended()
        if status is None:
            return
        now = time.monotonic()
        if self.start_again_at is None:
            if now - self.started_at >= WELL_AFTER_S:
                self.next_pause_s = FIRST_PAUSE_S
            self.start_again_at = now + self.next_pause_s
            print(
                f"{self.name} ended ({in_words(status)}); starting it again in {self.next_pause_s:.0f} s "
                f"(log: {self.log})",
                flush=True,
            )
            self.next_pause_s = min(self.next_pause_s * 2, LONGEST_PAUSE_S)
        elif now >= self.start_again_at:
            self.start()
            print(f"{self.name} started again", flush=True)

    def log_tail(self, lines: int = 20) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 64 * 1024))
                return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")
        except FileNotFoundError:
            return ""


def stop(parts: Iterable[Part], grace_s: float) -> None:
    """Ask all to end, wait, kill what is left. A second request to stop ends the waiting."""
    running = [part.process for part in parts if part.process is not None and part.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_s
    try:
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            pause(min(0.5, deadline - time.monotonic()))
    except StopRequested:
        print("asked again: killing what is left", flush=True)
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session: its children go too
            process.wait()


def in_words(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _bound(log: Path) -> None:
    """Keep one old log beside the new one, so that logs take at most twice the limit."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
