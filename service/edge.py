"""Around the whole app: which hosts are answered, the request id, security headers, one access line."""

import re
import secrets
import time
from collections.abc import Mapping

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from core.errors import Forbidden, Malformed, ModelyardError
from core.redaction import redact
from service.addresses import Hosts
from service.parts import Parts
from service.problems import encode_problem, note, problem_of
from service.quick import ROUTE_NAME as QUICK_ROUTE
from service.quick import Quick

SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

#: What asks for nothing to be changed.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: What may come once at most: of two nobody knows which one counts.
SINGLE = (b"host", b"authorization", b"content-length", b"origin")
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
        self._hosts = Hosts(parts.settings)

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
                    client=self.parts.addresses.of(scope),
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

    def _refusal(self, scope: HTTPScope, headers: dict[bytes, str]) -> ModelyardError | None:
        came = list(scope["headers"])
        if len(headers) != len(came):
            names = [name for name, _ in came]
            if (twice := next((name for name in SINGLE if names.count(name) > 1), None)) is not None:
                return Malformed(f"The header {twice.decode()} came more than once; send it once.")
        refusal = self._hosts.refusal(headers.get(b"host", ""))
        if refusal is not None:
            return refusal
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in SAFE and not _is_own(origin, headers[b"host"]):
            return Forbidden(
                f"Pages of {origin[:100]!r} may change nothing here; ask from a page of this service, or "
                "without a browser.",
                code="cross_origin",
            )
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            return Malformed("A path or a query holds no NUL character; send it without.")
        return None


def _is_own(origin: str, host: str) -> bool:
    """Whether a browser's page is one of this service: where keys are off, nothing else stops others."""
    return origin.partition("://")[2].lower() == host.strip().lower()


def _request_id(sent: str) -> str:
    is_kept = SANE_REQUEST_ID.fullmatch(sent) is not None and redact(sent) == sent
    return sent if is_kept else secrets.token_hex(12)


def _has_body(headers: dict[bytes, str]) -> bool:
    return headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers


async def send_problem(error: Exception, path: str, send: Send) -> None:
    status, headers, body = encode_problem(error, path)
    headers["content-length"] = str(len(body))
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
