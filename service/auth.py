"""Who asks: a key belongs to one owner and has scopes, every route names the one it takes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from modelyard.specs import Scope as Scope

DEFAULT_OWNER = "default"


class Open(StrEnum):
    """The other decision a route can take: it needs no key."""

    OPEN = "open"


def needs(decision: Scope | Open, *, takes_basic: bool = False) -> dict[str, Any]:
    """The `opt` of a route or controller; `takes_basic`: the key may come as a Basic password too."""
    return {"scope": decision, "takes_basic": takes_basic}


OPEN = Open.OPEN


@dataclass(frozen=True)
class Principal:
    """Who asks. `key_id`, `key_name` and `digest`, that of the key, are None where keys are off."""

    owner: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    key_name: str | None = None
    digest: bytes | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def is_operator(self) -> bool:
        """Whether keys and changes of every owner are theirs to see: an admin of the owner `default`."""
        return self.owner == DEFAULT_OWNER and Scope.ADMIN in self.scopes


#: Who asks where keys are off.
EVERYBODY = Principal(DEFAULT_OWNER, frozenset(Scope))


def decisions(app: Litestar) -> dict[tuple[str, str], object]:
    """What each route asks for, by method and path; None where it does not say."""
    return {
        (method, route.path_format): handler.opt.get("scope")
        for route in app.routes
        for method, handler in _handlers(route)
    }


def undecided_routes(app: Litestar) -> list[str]:
    """Routes that name no scope and are not declared open. There must be none."""
    return [
        f"{method} {path}"
        for (method, path), decision in decisions(app).items()
        if not isinstance(decision, Scope | Open)
    ]


def _handlers(route: object) -> list[tuple[str, HTTPRouteHandler]]:
    if not isinstance(route, HTTPRoute):
        return []
    return [(method, pair[0]) for method, pair in route.route_handler_map.items() if method != "OPTIONS"]
