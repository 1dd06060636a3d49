"""`/metrics` on a loopback port of its own, without a key: for a Prometheus on the same machine."""

import socket

import structlog
import uvicorn
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from core.errors import ModelyardError, NotFound
from service.addresses import LOOPBACK_NAMES, host_name, wrong_host
from service.edge import send_problem
from service.metrics.page import page
from service.metrics.text import CONTENT_TYPE
from service.parts import Parts
from service.startup import CannotStart

HOST = "127.0.0.1"
#: Scrapes under way may end within this time.
GRACE_S = 5

log = structlog.stdlib.get_logger()


class OpenPage:
    """The ASGI app of that port. It answers with the series of all owners."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        try:
            body = await self._body(scope)
        except ModelyardError as error:
            await send_problem(error, scope["path"], send)
            return
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _body(self, scope: HTTPScope) -> bytes:
        # A page in a browser of this machine may ask for the port under a name of its own.
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if (name := host_name(host)) not in LOOPBACK_NAMES:
            raise wrong_host(name, LOOPBACK_NAMES)
        if (scope["method"], scope["path"]) != ("GET", "/metrics"):
            raise NotFound("There is only GET /metrics here; all else is on the service's own port.")
        return await page(self._parts, None)


class MetricsPort:
    """Bound as it is made: raises CannotStart where the port is taken. It serves between `open` and `close`,
    on the event loop that runs then."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
            self._socket.listen()  # from now on nobody else can have it
        except OSError as error:
            self._socket.close()
            raise CannotStart(
                f"MODELYARD_METRICS_PORT: cannot bind {HOST} port {port}: {error.strerror}; "
                "choose another (0 takes a free one), or leave it out."
            ) from error
        self._server: uvicorn.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._socket.getsockname()[1]}/metrics"

    async def open(self, parts: Parts) -> None:
        config = uvicorn.Config(
            OpenPage(parts),
            http="httptools",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        config.load()
        # A server within a server: it gets no signals and no loop of its own, only connections.
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._socket])
        log.info("metrics_listening", url=self.url)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.shutdown(sockets=[self._socket])
        self._socket.close()
