"""Children of the fork server: a process that has torch imported and has never touched a device.

A child starts in milliseconds; a plain spawn would pay seconds of imports for each attempt.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

from workers import messages
from workers.messages import AnyCommand, AnyReport, Order

_CONTEXT = multiprocessing.get_context("forkserver")


def preload(plugins: str = "") -> None:
    """Starts the fork server and waits until it has imported what children run. Call once, at start. A first
    child loads the plugins that all will: RuntimeError where they can't be.

    The entry point's module must not be imported again in children: run it as `python -m workers`.
    """
    # Beside another busy process, threads that spin for each other cost far more than ones that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _CONTEXT.set_forkserver_preload(["workers.child"])
    forkserver.ensure_running()
    probe = _CONTEXT.Process(target=_try, args=(plugins,), daemon=True)
    probe.start()
    probe.join()
    if probe.exitcode != 0:
        raise RuntimeError(f"the fork server's first child ended with {probe.exitcode}: see the log above")


def _try(plugins: str) -> None:
    """Runs in the probe: it exists only once the preload is done."""
    import workers.child  # noqa: F401 - raises here what the fork server's preload passes over in silence
    from core.nets.plugins import load

    load(plugins)


def _run(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    from workers.child import main  # preloaded: a look-up, not an import

    main(connection, payload)


class Child:
    """One attempt's process and the pipe to it."""

    def __init__(self, order: Order) -> None:
        self._connection, theirs = _CONTEXT.Pipe()
        self.process: BaseProcess = _CONTEXT.Process(
            target=_run, args=(theirs, messages.encode(order)), name=f"train-{order.job}", daemon=True
        )
        self.process.start()
        theirs.close()  # ours is the only other end: the child's death is an EOF here

    def wait(self, timeout_s: float) -> None:
        """Until the child has something to say, ended, or the time is over."""
        multiprocessing.connection.wait([self._connection, self.process.sentinel], timeout_s)

    def reports(self) -> list[AnyReport]:
        """What has arrived; never blocks."""
        found: list[AnyReport] = []
        with contextlib.suppress(EOFError, OSError):  # the child is gone; `alive` says so
            while self._connection.poll():
                found.append(messages.decode_report(self._connection.recv_bytes()))
        return found

    def tell(self, command: AnyCommand) -> None:
        with contextlib.suppress(OSError):  # it died before it could hear it
            self._connection.send_bytes(messages.encode(command))

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def exit_reason(self) -> str:
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kills and reaps. Whatever the child has to give was given before: an interpreter with torch
        takes most of a second to leave by itself, and a job waits for the slot."""
        self.process.kill()
        self.process.join()
        self._connection.close()
