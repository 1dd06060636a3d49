"""The pipe from the child to its supervisor. Its end is the child's end: nobody would take what it makes."""

import multiprocessing.connection
import queue
import threading
from typing import TypeVar

from workers.link import end_group
from workers.predictions import messages
from workers.predictions.messages import AnyCommand, AnyReport

T = TypeVar("T", bound=AnyCommand)


class Link:
    def __init__(self, connection: multiprocessing.connection.Connection) -> None:
        self._connection = connection
        self._heard: queue.Queue[AnyCommand] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, report: AnyReport) -> None:
        self._connection.send_bytes(messages.encode(report))

    def wait_for(self, kind: type[T]) -> T:
        """The next command, which is of this kind."""
        command = self._heard.get()
        assert isinstance(command, kind)
        return command

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(messages.decode_command(self._connection.recv_bytes()))
        except (EOFError, OSError):
            end_group()
