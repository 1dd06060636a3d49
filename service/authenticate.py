"""Litestar middleware: lets in who may ask the route, after routing and before the body is read."""

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Send
from litestar.types import Scope as AsgiScope

from service.addresses import Addresses
from service.audit import ASKED, AUDITED, Asked
from service.auth import OPEN, Principal
from service.gate import Gate, bearer_of


class Authenticate:
    def __init__(self, app: ASGIApp, gate: Gate, addresses: Addresses) -> None:
        self.app = app
        self._gate, self._addresses = gate, addresses

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        # OPTIONS tells the methods, no more.
        if scope["type"] != ScopeType.HTTP or scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
            return
        needed = scope["route_handler"].opt["scope"]
        if needed is OPEN:
            await self.app(scope, receive, send)
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        authorization = header.decode("latin-1") if header else None
        if scope["route_handler"].opt.get("takes_basic"):
            authorization = bearer_of(authorization)
        principal = await self._gate.admit(scope, authorization, needed)
        scope["user"] = principal
        if scope["method"] not in AUDITED:
            await self.app(scope, receive, send)
            return
        asked = self._asked(scope, principal)
        ASKED.set(asked)
        try:
            await self.app(scope, receive, send)
        finally:
            asked.is_over = True

    def _asked(self, scope: HTTPScope, who: Principal) -> Asked:
        return Asked(
            who,
            action=f"{scope['method']} {scope['path_template']}",
            target=scope["path"],
            request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
            address=self._addresses.of(scope),
        )
