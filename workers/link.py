"""The pipe from a training child to its supervisor. Its end is the child's end: an orphan must not train on
a device that the lease has given to another."""

import multiprocessing.connection
import os
import queue
import signal
import threading

from workers import messages
from workers.messages import AnyReport, Committed, Failed, Register, Stop, TooLarge, WentAstray


class Link:
    """`stop` is what the supervisor asked for, if it did."""

    def __init__(self, connection: multiprocessing.connection.Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._registers: queue.Queue[Register | None] = queue.Queue()
        self._committed = -1
        self._news = threading.Condition()
        self.stop: Stop | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, report: AnyReport) -> None:
        with self._sending:
            self._connection.send_bytes(messages.encode(report))

    def wait_for_register(self) -> Register | None:
        """None where a Stop came instead."""
        return self._registers.get()

    def wait_for_commit(self, step: int) -> None:
        """Until the checkpoint of this step has its row."""
        with self._news:
            self._news.wait_for(lambda: self._committed >= step)

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Whether a Stop came, at the latest after so long."""
        with self._news:
            return self._news.wait_for(lambda: self.stop is not None, timeout_s)

    def _listen(self) -> None:
        try:
            while True:
                match messages.decode_command(self._connection.recv_bytes()):
                    case Stop() as stop:
                        with self._news:
                            self.stop = stop
                            self._news.notify_all()
                        self._registers.put(None)
                    case Register() as register:
                        self._registers.put(register)
                    case Committed(step):
                        with self._news:
                            self._committed = step
                            self._news.notify_all()
        except (EOFError, OSError):
            end_group()


class QuietLink(Link):
    """Of a rank that is not the first: only why it can't go on reaches the supervisor, which never tells it
    anything and ends it with the first."""

    def send(self, report: AnyReport) -> None:
        if isinstance(report, WentAstray | TooLarge | Failed):
            super().send(report)


def end_group() -> None:
    """Ends this process and those that it started, at once and whatever they do."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
