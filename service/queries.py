"""Which query parameters a route takes: one that it doesn't declare is an error, as an unknown field is."""

from urllib.parse import parse_qsl

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send

from core.errors import Invalid
from core.faults import MAX_ERRORS, fault, show, suggestion
from modelyard.specs import ProblemError


class KnownParameters:
    """Litestar middleware: runs after routing and before the body is read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._declared: dict[tuple[str, str], list[str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] != "OPTIONS" and scope["query_string"]:
            self._declared = self._declared or declared_parameters(scope["litestar_app"])
            known = self._declared[scope["path_template"], scope["method"]]
            require_known(scope["query_string"], known)
        await self.app(scope, receive, send)


def declared_parameters(app: Litestar) -> dict[tuple[str, str], list[str]]:
    """Sorted names as a request writes them, by (path template, method)."""
    return {
        (route.path_format, method): sorted(taken.field_alias for taken in model.expected_query_params)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (_, model) in route.route_handler_map.items()
    }


def require_known(query: bytes, known: list[str]) -> None:
    """Raises Invalid with each parameter that isn't known."""
    errors: list[ProblemError] = []
    names = dict.fromkeys(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for name in [name for name in names if name not in known][:MAX_ERRORS]:
        takes = f"takes {', '.join(known)}" if known else "takes no query parameters"
        message = f"unknown parameter {show(name)}; this route {takes}.{suggestion(name, known)}"
        fault(errors, "", "unknown_parameter", message)
    if errors:
        said = " ".join(error.message for error in errors[:3])
        raise Invalid(f"The query can't be taken: {said}", code="unknown_parameter", errors=errors)
