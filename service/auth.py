"""Who asks, and may they: a key belongs to one owner and has scopes, every route names the one it takes."""

import base64
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Send
from litestar.types import Scope as AsgiScope

from core.db.engines import AsyncDatabase
from core.db.models import utc_now
from core.db.statements import keys as statements
from core.errors import Forbidden, Unauthenticated
from service.keys import digest_of
from service.together import Together

#: A revoked key works for so long at most.
CACHED_S = 2.0
MAX_CACHED = 10_000

DEFAULT_OWNER = "default"


class Scope(StrEnum):
    READ = "read"
    TRAIN = "train"
    PREDICT = "predict"
    PROMOTE = "promote"
    ADMIN = "admin"


class Open(StrEnum):
    """The other decision a route can take: it needs no key."""

    OPEN = "open"


def needs(decision: Scope | Open, *, takes_basic: bool = False) -> dict[str, Any]:
    """The `opt` of a route or controller; `takes_basic`: the key may come as a Basic password too."""
    return {"scope": decision, "takes_basic": takes_basic}


OPEN = Open.OPEN


@dataclass(frozen=True)
class Principal:
    """Who asks. `key_id` and `key_name` are None where keys are off."""

    owner: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    key_name: str | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


#: Who asks where keys are off.
EVERYBODY = Principal(DEFAULT_OWNER, frozenset(Scope))


class Keyring:
    """Looks keys up; a verified one is remembered for two seconds."""

    def __init__(
        self,
        database: AsyncDatabase,
        *,
        is_on: bool,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._is_on = is_on
        self._clock = clock
        self._now = now
        self._cached: dict[bytes, tuple[Principal, float]] = {}
        self._together: Together[bytes, Principal] = Together()

    async def principal(self, authorization: str | None) -> Principal:
        """Raises Unauthenticated for no key, a malformed, unknown, expired or revoked one."""
        if not self._is_on:
            return EVERYBODY
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise Unauthenticated("Expected the header `Authorization: Bearer mdy_…`; send your key in it.")
        digest = digest_of(key.strip())
        principal, until = self._cached.get(digest, (None, 0.0))
        if principal is not None and self._clock() < until:
            return principal
        principal = await self._together.ask(digest, partial(self._look_up, digest))
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[digest] = (principal, self._clock() + CACHED_S)
        return principal

    async def _look_up(self, digest: bytes) -> Principal:
        async with self._database.read() as session:
            row = (await session.scalars(statements.find_key(digest))).one_or_none()
        if row is None or not hmac.compare_digest(row.secret_sha256, digest):
            raise Unauthenticated("This key is not known here; ask for a new one.")
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= self._now()):
            raise Unauthenticated("This key was revoked or has expired; ask for a new one.")
        return Principal(row.owner, frozenset(Scope(scope) for scope in row.scopes), row.id, row.name)


class Authenticate:
    """Litestar middleware: runs after routing and before the body is read."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self._keyring = keyring

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == ScopeType.HTTP and scope["method"] != "OPTIONS"
        ):  # OPTIONS tells the methods, no more
            needed = scope["route_handler"].opt["scope"]
            if needed is not OPEN:
                header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
                authorization = header.decode("latin-1") if header else None
                if scope["route_handler"].opt.get("takes_basic"):
                    authorization = bearer_of(authorization)
                principal = await self._keyring.principal(authorization)
                if not principal.may(needed):
                    raise Forbidden(f"This route needs a key with the scope {needed!s}; yours lacks it.")
                scope["user"] = principal
        await self.app(scope, receive, send)


def bearer_of(authorization: str | None) -> str | None:
    """The same as a Bearer header where the key is the password of a Basic one; else as it came."""
    kind, _, encoded = (authorization or "").partition(" ")
    if kind.lower() != "basic":
        return authorization
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("latin-1")
    except ValueError:
        return authorization
    return f"Bearer {decoded.partition(':')[2]}"


def undecided_routes(app: Litestar) -> list[str]:
    """Routes that name no scope and are not declared open. There must be none."""
    return [
        f"{method} {route.path}"
        for route in app.routes
        for method, handler in _handlers(route)
        if not isinstance(handler.opt.get("scope"), Scope | Open)
    ]


def _handlers(route: object) -> list[tuple[str, HTTPRouteHandler]]:
    if not isinstance(route, HTTPRoute):
        return []
    return [(method, pair[0]) for method, pair in route.route_handler_map.items() if method != "OPTIONS"]
