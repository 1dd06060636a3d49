"""Around the whole app: which hosts are answered, the request id, security headers, one access line."""

import ipaddress
import re
import secrets
import time
from collections.abc import Mapping, Set

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from core.errors import Malformed
from core.settings import Settings
from service.parts import Parts
from service.problems import encode_problem, note, problem_of
from service.quick import ROUTE_NAME as QUICK_ROUTE
from service.quick import Quick

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

#: Asked by machines every few seconds: their lines are for debugging.
QUIET_ROUTES = ("/health", "/v2/health", "/metrics")

#: What we keep of a client's own request id; anything else gets one of ours.
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = structlog.stdlib.get_logger()


class Edge:
    """The ASGI app that the server runs; `app` inside it has the routes."""

    def __init__(self, app: Litestar, parts: Parts, quick: Quick) -> None:
        self.app = app
        self.parts = parts
        self._quick = quick
        self._traffic = parts.traffic
        self._hosts = allowed_hosts(parts.settings)

    def begin_stop(self) -> None:
        """Before the server waits for its connections to end."""
        self.parts.begin_stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        raw = dict(scope["headers"])
        headers = {name: value.decode("latin-1") for name, value in raw.items()}
        is_quick = self._quick.takes(scope, raw)
        request_id = _request_id(headers.get(b"x-request-id", ""))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started_ns = time.perf_counter_ns()
        status = 0
        is_body_read = False

        async def receive_noting() -> Message:
            nonlocal is_body_read
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                is_body_read = True
            return message  # type: ignore[return-value]  # Litestar types receive and send messages apart

        async def send_decorated(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
                if status >= 400 and not is_body_read and _has_body(headers):
                    # Refused before the body was read: don't take the rest of it in.
                    extra.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await send_problem(refusal, scope["path"], send_decorated)
            elif is_quick:
                await self._answer_quickly(scope, raw, receive_noting, send_decorated)  # type: ignore[arg-type]  # as above
            else:
                await self.app(scope, receive_noting, send_decorated)  # type: ignore[arg-type]  # as above
        finally:
            route = QUICK_ROUTE if is_quick else scope.get("path_template") or "-"
            took_ns = time.perf_counter_ns() - started_ns
            self._traffic.add(scope["method"], route, status, took_ns)
            is_quiet = is_quick and status == 200  # counted; a line each would take as long as the forward
            if not is_quiet:
                level = log.debug if route.startswith(QUIET_ROUTES) else log.info
                level(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    ms=round(took_ns / 1e6, 1),
                )

    async def _answer_quickly(
        self, scope: HTTPScope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        try:
            await self._quick.answer(scope, headers, receive, send)
        except Exception as error:
            note(error, problem_of(error)[0], scope["method"], scope["path"])
            await send_problem(error, scope["path"], send)

    def _refusal(self, scope: Scope, headers: dict[bytes, str]) -> Malformed | None:
        refusal = wrong_host(headers.get(b"host", ""), self._hosts)
        if refusal is not None:
            return refusal
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            return Malformed("A path or a query holds no NUL character; send it without.")
        return None


def allowed_hosts(settings: Settings) -> frozenset[str] | None:
    """None answers every name: bound to all addresses we cannot know under which ones we are reached."""
    host = settings.host.lower()
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return None
    except ValueError:  # a name
        pass
    return LOOPBACK_NAMES | {host}


def wrong_host(header: str, hosts: Set[str] | None) -> Malformed | None:
    """What is wrong with a `Host` that names none of these; nothing where all are taken."""
    host = _host_name(header)
    if hosts is None or host in hosts:
        return None
    return Malformed(
        f"This service answers to {', '.join(sorted(hosts))}; the Host is {host[:100]!r}.",
        code="host_not_allowed",
    )


def _host_name(header: str) -> str:
    """`[::1]:8000` -> `::1`, `Localhost:8000` -> `localhost`."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _request_id(sent: str) -> str:
    return sent if SANE_REQUEST_ID.fullmatch(sent) else secrets.token_hex(12)


def _has_body(headers: dict[bytes, str]) -> bool:
    return headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers


async def send_problem(error: Exception, path: str, send: Send) -> None:
    status, headers, body = encode_problem(error, path)
    headers["content-length"] = str(len(body))
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
