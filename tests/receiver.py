"""A receiver of webhooks on a real socket of loopback, answering as a test tells it, keeping what came."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def said(self) -> dict[str, Any]:
        return dict(msgspec.json.decode(self.body))


class Receiver:
    """`statuses` are answered in turn, the last one from then on. `before` runs once a message is in, and
    before it is answered."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[Message] = []
        self.statuses: list[int] = [204]
        self.headers: dict[str, str] = {}
        self.before: Callable[[], None] = lambda: None
        self._came = threading.Condition()
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]  # cut connections are meant
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host, self.port = self._server.server_address[:2]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{self.host!s}:{self.port}/hook"

    def wait_for(self, count: int, timeout_s: float = 20) -> list[Message]:
        with self._came:
            done = self._came.wait_for(lambda: len(self.messages) >= count, timeout_s)
        assert done, f"expected {count} messages within {timeout_s} s, got {len(self.messages)}"
        return list(self.messages)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 20

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._came:
                    receiver.messages.append(Message(self.path, headers, body))
                    statuses = receiver.statuses
                    status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                    receiver._came.notify_all()
                receiver.before()
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)


@contextmanager
def receiving(**given: Any) -> Iterator[Receiver]:
    with Receiver(**given).listening() as receiver:
        yield receiver


@contextmanager
def untouched(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """The port of a listening socket. Whoever connects to it until the block ends fails the test."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        yield listener.getsockname()[1]
        listener.settimeout(0.05)
        try:
            connection, whence = listener.accept()
        except TimeoutError:
            return
        connection.close()
        raise AssertionError(f"a packet was sent: {whence} connected to {host}")


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"it did not hold within {timeout_s} s"
        time.sleep(0.02)
