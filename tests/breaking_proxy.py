"""A proxy on loopback whose connections break in the middle of what the client sends."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator


class BreakingProxy:
    """The first `breaks` connections end after so many bytes as a seeded generator says; later ones stay."""

    def __init__(self, port: int, breaks: int, largest_bytes: int) -> None:
        self.num_broken = 0
        self._to = ("127.0.0.1", port)
        self._left = breaks
        self._places = random.Random(breaks)
        self._largest_bytes = largest_bytes
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["BreakingProxy"]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join()

    def _accept(self) -> None:
        connections: list[threading.Thread] = []
        with contextlib.suppress(OSError):  # closed: no more come
            while True:
                client, _ = self._listener.accept()
                connections.append(threading.Thread(target=self._serve, args=(client,)))
                connections[-1].start()
        for connection in connections:
            connection.join()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            budget = self._places.randrange(1, self._largest_bytes) if self._left else None
            self._left = max(0, self._left - 1)
        with client, socket.create_connection(self._to) as service:
            answers = threading.Thread(target=_pump, args=(service, client))
            answers.start()
            if not _pump(client, service, budget):
                self.num_broken += 1
            for end in (client, service):
                with contextlib.suppress(OSError):  # the other side was quicker
                    end.shutdown(socket.SHUT_RDWR)
            answers.join()


def _pump(source: socket.socket, target: socket.socket, budget: int | None = None) -> bool:
    """Until the source ends, or the budget: then False."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536 if budget is None else min(65_536, budget)):
            target.sendall(data)
            if budget is not None and (budget := budget - len(data)) == 0:
                return False
    return True
