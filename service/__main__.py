"""`python -m service`: reads the settings, serves HTTP until SIGTERM or Ctrl-C, ends with status 0."""

import gc
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn

from core.logs import configure_logs
from core.settings import Settings, settings_or_exit
from service.app import create_app
from service.edge import Edge
from service.metrics.port import MetricsPort
from service.startup import CannotStart, require_schema

#: Running requests may finish within this time after SIGTERM.
GRACE_S = 25

log = structlog.stdlib.get_logger()


class Server(uvicorn.Server):
    """Tells the app that it stops before it waits for connections: open event streams end then."""

    def __init__(self, config: uvicorn.Config, edge: Edge, metrics: MetricsPort | None) -> None:
        super().__init__(config)
        self._edge = edge
        self.metrics = metrics

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        if self.metrics is not None:
            await self.metrics.open(self._edge.parts)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping", grace_s=GRACE_S)
        self._edge.begin_stop()
        if self.metrics is not None:
            await self.metrics.close()
        await super().shutdown(sockets)


def make_server(settings: Settings) -> Server:
    """Raises CannotStart where the settings or the database do not allow it."""
    edge = create_app(settings)
    require_schema(settings)
    metrics = MetricsPort(settings.metrics_port) if settings.metrics_port is not None else None
    config = uvicorn.Config(
        edge,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config, edge, metrics)


def main() -> int:
    settings = settings_or_exit()
    configure_logs(settings)
    # uvicorn raises the signal that stopped it once more when it is done; by then all is in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ended)
    try:
        server = make_server(settings)
        # What was imported stays for good. Looked through again and again by the collector it stopped every
        # request for 300 ms, about once a second under load.
        gc.collect()
        gc.freeze()
        server.run()
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _ended(_number: int, _frame: FrameType | None) -> None:
    return


if __name__ == "__main__":
    sys.exit(main())
