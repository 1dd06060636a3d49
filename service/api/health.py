"""`/health`: alive, ready, started; open to everybody, says nothing about anybody."""

import asyncio
from http import HTTPStatus
from typing import Any

from litestar import Controller, Response, get
from sqlalchemy import text

from service.auth import OPEN, needs
from service.parts import Parts, Wired

DATABASE_TIMEOUT_S = 2.0


class Health(Controller):
    path = "/health"
    tags = ("health",)
    opt = needs(OPEN)

    @get("/live", sync_to_thread=False)
    def live(self) -> dict[str, str]:
        """200 while the process answers at all."""
        return {"status": "ok"}

    @get("/startup", sync_to_thread=False)
    def startup(self) -> dict[str, str]:
        """200 once the start is over: before that nothing is served."""
        return {"status": "ok"}

    @get("/ready")
    async def ready(self, parts: Wired) -> Response[dict[str, Any]]:
        """200 where new requests are welcome. The broker is only shown: jobs are taken without it."""
        database = await database_state(parts)
        is_ready = database == "ok" and parts.can_compute and not parts.stopping.is_set()
        content = {
            "status": "stopping" if parts.stopping.is_set() else "ok" if is_ready else "unavailable",
            "database": database,
            "broker": parts.sweeper.broker,
            "inference": "ok" if parts.can_compute else "replacing",
        }
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(content, status_code=status, headers={} if is_ready else {"Retry-After": "1"})


async def database_state(parts: Parts) -> str:
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S), parts.database.read() as session:
            await session.execute(text("SELECT 1"))
    except Exception:  # whatever the driver says: the answer of this route is exactly this
        return "unavailable"
    return "ok"
