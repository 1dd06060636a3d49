"""Which methods a path takes: what OPTIONS says, and the Allow header of a 405 (RFC 9110, 15.5.6).

The framework's own answer to OPTIONS leaves out the methods that were registered after a path's first.
"""

from http import HTTPStatus

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send


class Methods:
    """Litestar middleware: answers OPTIONS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._allowed: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            await self.app(scope, receive, send)
            return
        self._allowed = self._allowed or allowed_methods(scope["litestar_app"])
        allow = self._allowed[scope["path_template"]].encode()
        start = {
            "type": "http.response.start",
            "status": HTTPStatus.NO_CONTENT,
            "headers": [(b"allow", allow)],
        }
        await send(start)  # type: ignore[arg-type]  # Litestar's own type of a message, as a literal
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def allowed_methods(app: Litestar) -> dict[str, str]:
    """By path template, as the header has it."""
    return {
        route.path_format: ", ".join(sorted({*route.route_handler_map, "OPTIONS"}))
        for route in app.routes
        if isinstance(route, HTTPRoute)
    }
