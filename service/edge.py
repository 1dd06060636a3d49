"""Around the whole app: which hosts are answered, the request id, security headers, one access line."""

import itertools
import re
import secrets
import time

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from core.errors import Forbidden, Malformed, ModelyardError, Overloaded
from core.redaction import redact
from service.addresses import Hosts
from service.caller import heard_from
from service.exchange import Exchange, Headers
from service.parts import Parts
from service.problems import encode_problem, note, problem_of
from service.quick import Quick, Way

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
        self._in_flight, self._max_in_flight = 0, parts.settings.max_in_flight
        self._started, self._numbers = secrets.token_hex(8), itertools.count()

    def begin_stop(self) -> None:
        """Before the server waits for its connections to end."""
        self.parts.begin_stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        way = self._quick.way(scope, headers)
        exchange = Exchange(headers, self._request_id(headers), receive, send)
        # Every request is a task, and has a context of its own.
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        started_ns = time.perf_counter_ns()
        heard_from.set(receive)
        self._in_flight += 1
        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await send_problem(refusal, scope["path"], exchange.send)
            elif way is not None:
                await self._answer_quickly(way, scope, exchange)
            else:
                await self.app(scope, exchange.receive, exchange.send)  # type: ignore[arg-type]  # Litestar types receive and send messages apart
        finally:
            self._in_flight -= 1
            route = way.route if way is not None else scope.get("path_template") or "-"
            took_ns = time.perf_counter_ns() - started_ns
            self._traffic.add(scope["method"], route, exchange.status, took_ns)
            is_quiet = (
                way is not None and exchange.status == 200
            )  # counted; a line takes as long as a forward
            if not is_quiet:
                level = log.debug if route.startswith(QUIET_ROUTES) else log.info
                level(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=exchange.status,
                    client=self.parts.addresses.of(scope),
                    ms=round(took_ns / 1e6, 1),
                )

    async def _answer_quickly(self, way: Way, scope: HTTPScope, exchange: Exchange) -> None:
        try:
            await self._quick.answer(way, scope, exchange)
        except Exception as error:
            note(error, problem_of(error)[0], scope["method"], scope["path"])
            await send_problem(error, scope["path"], exchange.send)

    def _request_id(self, headers: Headers) -> str:
        """The client's own where it is sane and no key, else one that no other request has."""
        sent = headers.get(b"x-request-id")
        told = sent.decode("latin-1") if sent is not None else ""
        if SANE_REQUEST_ID.fullmatch(told) is not None and redact(told) == told:
            return told
        return f"{self._started}{next(self._numbers):08x}"

    def _refusal(self, scope: HTTPScope, headers: Headers) -> ModelyardError | None:
        came = list(scope["headers"])
        if len(headers) != len(came):
            names = [name for name, _ in came]
            if (twice := next((name for name in SINGLE if names.count(name) > 1), None)) is not None:
                return Malformed(f"The header {twice.decode()} came more than once; send it once.")
        if self._in_flight > self._max_in_flight and not scope["path"].startswith(QUIET_ROUTES):
            return Overloaded(
                f"{self._max_in_flight} requests are being answered already; send the same one again.",
                retry_after_s=1,
            )
        refusal = self._hosts.refusal(headers.get(b"host", b"").decode("latin-1"))
        if refusal is not None:
            return refusal
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in SAFE and not _is_own(origin, headers[b"host"]):
            return Forbidden(
                f"Pages of {origin[:100].decode('latin-1')!r} may change nothing here; ask from a page of "
                "this service, or without a browser.",
                code="cross_origin",
            )
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            return Malformed("A path or a query holds no NUL character; send it without.")
        return None


def _is_own(origin: bytes, host: bytes) -> bool:
    """Whether a browser's page is one of this service: where keys are off, nothing else stops others."""
    return origin.partition(b"://")[2].lower() == host.strip().lower()


async def send_problem(error: Exception, path: str, send: Send) -> None:
    status, headers, body = encode_problem(error, path)
    headers["content-length"] = str(len(body))
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
