"""A sender on a test's database, receivers that it may reach, and messages for it to send."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from core import ids
from core.db import outbox
from core.db.engines import AsyncDatabase, open_async_database
from core.db.models import Delivery, Webhook, utc_now
from modelyard.specs import WebhookEvent
from service.webhooks.addresses import Allowed
from service.webhooks.posting import Post, Resolver
from service.webhooks.sender import Sender

OWNER = "ada"
SECRET = b"k" * 32

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass
class Office:
    """`look` begins what is due and waits until every try has ended."""

    database: AsyncDatabase
    sender: Sender

    async def webhook(self, url: str, owner: str = OWNER) -> str:
        """As it stands in the database, whatever the service would have said to its URL."""
        row = Webhook(
            id=ids.webhook_id(),
            owner=owner,
            url=url,
            events=list(WebhookEvent),
            secret=SECRET,
            state="enabled",
            created_at=utc_now(),
        )
        async with self.database.write() as session:
            session.add(row)
            await session.commit()
        return row.id

    async def tell(self, times: int = 1, owner: str = OWNER) -> None:
        """Something happens: every webhook of the owner is to be told."""

        def write(connection: Connection) -> None:
            for number in range(times):
                outbox._tell(connection, owner, WebhookEvent.JOB_FAILED, {"id": str(number)}, utc_now())

        async with self.database.write() as session:
            await (await session.connection()).run_sync(write)
            await session.commit()

    async def look(self) -> None:
        await self.sender.look()
        await self.sender.settled()

    async def deliveries(self, webhook_id: str) -> list[Delivery]:
        async with self.database.read() as session:
            query = select(Delivery).where(Delivery.webhook_id == webhook_id).order_by(Delivery.message_id)
            return list(await session.scalars(query))

    async def hurry(self) -> None:
        """What waits for its next try is due now."""
        async with self.database.write() as session:
            await session.execute(update(Delivery).values(next_at=utc_now()))
            await session.commit()


@asynccontextmanager
async def opened(
    database_url: str,
    *,
    allow: str = "127.0.0.1",
    timeout_s: float = 5,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
    waits_s: tuple[float, ...] = (5.0, 300.0),
) -> AsyncIterator[Office]:
    database = open_async_database(database_url)
    resolver = Resolver(4)
    context = tls or ssl.create_default_context()
    post = Post(Allowed.of(allow), timeout_s, resolve or resolver, context)
    try:
        yield Office(database, Sender(database, post, waits_s=waits_s))
    finally:
        resolver.close()
        await database.close()
