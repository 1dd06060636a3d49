"""One request and its answer as they pass: what was read of it, what was told."""

from collections.abc import Mapping

from litestar.types import Message, Receive, Send

SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Headers = Mapping[bytes, bytes]


class Exchange:
    """`status` is 0 until there is one."""

    __slots__ = ("_receive", "_send", "headers", "is_body_read", "request_id", "status")

    def __init__(self, headers: Headers, request_id: str, receive: Receive, send: Send) -> None:
        self.headers, self.request_id = headers, request_id
        self._receive, self._send = receive, send
        self.status = 0
        self.is_body_read = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.is_body_read = True
        return message  # type: ignore[return-value]  # Litestar types receive and send messages apart

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = [(b"x-request-id", self.request_id.encode()), *SECURITY_HEADERS]
            if self.status >= 400 and not self.is_body_read and _has_body(self.headers):
                # Refused before the body was read: don't take the rest of it in.
                extra.append((b"connection", b"close"))
            message["headers"] = [*message["headers"], *extra]
        await self._send(message)

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """All of it at once; the length is added."""
        headers.append((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _has_body(headers: Headers) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
