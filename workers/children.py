"""Children of the fork server: a process that has torch imported and has never touched a device.

A child starts in milliseconds; a plain spawn would pay seconds of imports for each attempt. It may have
children of its own (data workers), and is the leader of their group: all of it is killed at once.
"""

import atexit
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from workers import messages
from workers.messages import AnyCommand, AnyReport, Order

Report = TypeVar("Report")
Command = TypeVar("Command")

_CONTEXT = multiprocessing.get_context("forkserver")
#: How often an OpenMP thread looks before it sleeps: some 30 us.
SPINS = "10000"
#: The memory of activations comes and goes each step: what is kept is faulted in once, and huge pages are 512
#: times fewer. glibc reads this as a process starts, so it is the fork server's; other libcs pass it over.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"
#: How long a child gets to write where each of its threads stands: faulthandler needs no lock and no Python.
STACKS_S = 0.5


def preload(plugins: str = "") -> None:
    """Starts the fork server and waits until it has imported what children run. Call once, at start. A first
    child loads the plugins that all will: RuntimeError where they can't be.

    The entry point's module must not be imported again in children: run it as `python -m workers`.
    """
    # Beside another busy process, threads that spin for each other cost far more than ones that sleep.
    # Between two parts of one step they find each other in some microseconds: so long they do spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # cuBLAS repeats its own bits only with a workspace of fixed size, which `deterministic` asks for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("GLIBC_TUNABLES", MALLOC)
    # multiprocessing waits at exit for children that are no daemons. What is registered later runs earlier.
    atexit.register(_kill_all)
    _CONTEXT.set_forkserver_preload(["workers.child", "workers.predictions.child", "workers.warmed"])
    forkserver.ensure_running()
    probe = _CONTEXT.Process(target=_try, args=(plugins,), daemon=True)
    probe.start()
    probe.join()
    if probe.exitcode != 0:
        raise RuntimeError(f"the fork server's first child ended with {probe.exitcode}: see the log above")


def _kill_all() -> None:
    for process in multiprocessing.active_children():
        process.kill()


def _try(plugins: str) -> None:
    """Runs in the probe: it exists only once the preload is done."""
    import workers.child  # raises here what the fork server's preload passes over in silence
    import workers.predictions.child
    import workers.warmed  # noqa: F401
    from core.nets.plugins import load

    load(plugins)


def _run(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    from workers.child import main  # preloaded: a look-up, not an import

    main(connection, payload)


class Forked(Generic[Report, Command]):
    """One attempt's process and the pipe to it. `run` is what it does with its end and the payload."""

    def __init__(
        self, run: Callable[..., None], payload: bytes, name: str, decode: Callable[[bytes], Report]
    ) -> None:
        self._decode = decode
        self._connection, theirs = _CONTEXT.Pipe()
        self.process: BaseProcess = _CONTEXT.Process(
            target=run, args=(theirs, payload), name=name, daemon=False
        )
        self.process.start()
        theirs.close()  # ours is the only other end: the child's death is an EOF here

    @property
    def sources(self) -> tuple[multiprocessing.connection.Connection, int]:
        """What is ready once the child has something to say, or ended."""
        return self._connection, self.process.sentinel

    def wait(self, timeout_s: float, *others: multiprocessing.connection.Connection) -> None:
        """Until the child has something to say, ended, one of `others` has something, or the time is over."""
        multiprocessing.connection.wait([*self.sources, *others], timeout_s)

    def reports(self) -> list[Report]:
        """What has arrived; never blocks."""
        found: list[Report] = []
        with contextlib.suppress(EOFError, OSError):  # the child is gone; `alive` says so
            while self._connection.poll():
                found.append(self._decode(self._connection.recv_bytes()))
        return found

    def tell(self, command: Command) -> None:
        with contextlib.suppress(OSError):  # it died before it could hear it
            self._connection.send_bytes(messages.encode(command))

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def exit_reason(self) -> str:
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def write_stacks(self) -> None:
        """Where each of its threads stands, into its standard error, which is the worker's."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGUSR1)
                time.sleep(STACKS_S)

    def end(self) -> None:
        """Kills and reaps, its own children too. Whatever the child has to give was given before: an
        interpreter with torch takes most of a second to leave by itself, and a job waits for the slot."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it did not live to lead a group
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self._connection.close()


class Child(Forked[AnyReport, AnyCommand]):
    """The process of one attempt of a job."""

    def __init__(self, order: Order) -> None:
        super().__init__(_run, messages.encode(order), f"train-{order.job}", messages.decode_report)
