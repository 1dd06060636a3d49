"""Sends what the outbox holds: one asyncio task of the service, beside dispatcher and sweep.

A delivery is claimed by a conditional update, as a job is, so that of two services one sends it. Who
dies after the claim leaves it standing: another takes it back once no try can be under way any more, and
sends it again with the same id. A message may come twice, and none is lost.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from core.db.engines import AsyncDatabase
from core.db.models import Delivery, Webhook, utc_now
from core.db.statements import webhooks
from core.db.statements.webhooks import Claim
from core.errors import Invalid
from modelyard.specs import DeliveryState
from service.stillness import Stillness
from service.webhooks.addresses import Allowed
from service.webhooks.posting import LINGER_S, Answer, NotSent
from service.webhooks.schedule import WAITS_S, wait_s
from service.webhooks.signing import signed_headers
from service.webhooks.targets import Target, read_target

#: How often the outbox is looked into.
LOOK_S = 1.0

#: Added to that where the database did not answer.
AWAY_S = 5.0

#: Tries under way in this process: in all, for one owner, for one webhook. A receiver that hangs keeps none
#: but its own messages waiting.
MAX_AT_ONCE = 32
MAX_OF_OWNER = 8
MAX_OF_WEBHOOK = 2

GONE = 410
MAX_ERROR = 300

log = structlog.stdlib.get_logger()


class Posts(Protocol):
    """What sends one request: `posting.Post`."""

    @property
    def allowed(self) -> Allowed: ...
    @property
    def timeout_s(self) -> float: ...
    async def __call__(
        self, target: Target, headers: dict[str, str], body: bytes, now: datetime
    ) -> Answer: ...


class Sender:
    def __init__(
        self,
        database: AsyncDatabase,
        post: Posts,
        *,
        waits_s: tuple[float, ...] = WAITS_S,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._post = post
        self._waits_s = waits_s
        self._look_s = look_s
        self._clock = clock
        self._now = now
        self._claims: Stillness[tuple[str, str], int] = Stillness()
        self._under_way: dict[asyncio.Task[None], tuple[str, str]] = {}
        #: Ours until they are settled.
        self._held: set[Claim] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled: then what is under way is given back, for another process or a later one."""
        try:
            while True:
                self._ended.clear()
                if not await _survives(self.look):
                    await asyncio.sleep(AWAY_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s):
                        await self._ended.wait()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            for claim in self._held:
                with suppress(Exception):  # another takes it back later
                    await self._give_back(claim)

    async def look(self) -> None:
        """Takes back what died, and begins what is due as far as there is room."""
        async with self._database.read() as session:
            claimed = [Claim(*row) for row in (await session.execute(webhooks.sending())).all()]
        seen = {(claim.webhook_id, claim.message_id): claim.fence for claim in claimed}
        limit_s = 2 * (self._post.timeout_s + LINGER_S)  # a try takes half of it at most
        for (webhook_id, message_id), fence in self._claims.still(seen, self._clock(), limit_s):
            claim = Claim(webhook_id, message_id, fence)
            await self._give_back(claim)
            self._held.discard(claim)
        await self._begin()

    async def settled(self) -> None:
        """Until no try is under way any more."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _begin(self) -> None:
        of_webhook = Counter(webhook_id for webhook_id, _ in self._under_way.values())
        of_owner = Counter(owner for _, owner in self._under_way.values())
        while (room := MAX_AT_ONCE - len(self._under_way)) > 0:
            full = [name for name, count in of_webhook.items() if count >= MAX_OF_WEBHOOK]
            full_owners = [name for name, count in of_owner.items() if count >= MAX_OF_OWNER]
            async with self._database.read() as session:
                due = (await session.execute(webhooks.due(self._now(), full, full_owners, room))).all()
            for webhook_id, message_id, fence, owner in due:
                if of_webhook[webhook_id] < MAX_OF_WEBHOOK and of_owner[owner] < MAX_OF_OWNER:
                    of_webhook[webhook_id] += 1
                    of_owner[owner] += 1
                    await self._start(Claim(webhook_id, message_id, fence))
            if len(due) < room:
                return  # else there may be more behind those of a webhook that is full by now

    async def _start(self, seen: Claim) -> None:
        async with self._database.write() as session:
            row = (await session.scalars(webhooks.claim(seen))).one_or_none()
            if row is None:
                return  # another service has it
            webhook = await session.get_one(Webhook, seen.webhook_id)
            claim = Claim(row.webhook_id, row.message_id, row.fence)
            self._held.add(claim)
            await session.commit()
        task = asyncio.create_task(self._deliver(webhook, row, claim))
        self._under_way[task] = (webhook.id, webhook.owner)
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._ended.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhook_try_not_settled", exc_info=error, hint="it is taken back and tried again")

    async def _deliver(self, webhook: Webhook, row: Delivery, claim: Claim) -> None:
        await self._tried(webhook, row, claim)
        self._held.discard(claim)

    async def _tried(self, webhook: Webhook, row: Delivery, claim: Claim) -> None:
        if webhook.state == webhooks.DISABLED:
            await self._settle(claim, state=DeliveryState.DEAD, error="the webhook is disabled")
            return
        answer, error = await self._try(webhook, row)
        if error is None:
            await self._settle(claim, state=DeliveryState.DELIVERED, status=answer.status, error=None)
        elif answer.status == GONE:
            await self._disable(claim)
        else:
            await self._failed(claim, row, answer, error)

    async def _try(self, webhook: Webhook, row: Delivery) -> tuple[Answer, str | None]:
        """The answer, and what is wrong with it. Status 0 stands for none."""
        now, body = self._now(), row.body.encode()
        headers = signed_headers(webhook.secret, row.message_id, int(now.timestamp()), body)
        try:
            target = read_target(webhook.url, self._post.allowed)  # the operator may allow less by now
            answer = await self._post(target, headers, body, now)
        except Invalid as error:
            return Answer(0), f"refused: {error.errors[0].message}"
        except NotSent as error:
            return Answer(0), str(error)
        except Exception:  # whatever it is, it must not be tried for ever
            log.exception("webhook_try_failed", webhook=row.webhook_id, message=row.message_id)
            return Answer(0), "the try failed on our side"
        if 200 <= answer.status < 300:
            return answer, None
        what = "a redirect, which is not followed" if 300 <= answer.status < 400 else "no 2xx"
        return answer, f"answered {answer.status}: {what}"

    async def _failed(self, claim: Claim, row: Delivery, answer: Answer, error: str) -> None:
        log.warning(
            "webhook_not_delivered",
            webhook=row.webhook_id,
            message=row.message_id,
            attempt=row.attempts,
            reason=error,
        )
        told = {"status": answer.status or None, "error": error[:MAX_ERROR]}
        wait = wait_s(row.attempts, answer.retry_after_s, self._waits_s)
        if wait is None:
            await self._settle(claim, state=DeliveryState.DEAD, **told)
            return
        async with self._database.write() as session:
            next_at = self._now() + timedelta(seconds=wait)
            await session.execute(
                webhooks.settle(claim, state=DeliveryState.WAITING, next_at=next_at, **told)
            )
            await session.commit()

    async def _settle(self, claim: Claim, **values: object) -> None:
        async with self._database.write() as session:
            await session.execute(webhooks.settle(claim, finished_at=self._now(), **values))
            await session.commit()

    async def _disable(self, claim: Claim) -> None:
        """The receiver wants no more: what waits for it is dead too, until its owner asks for a replay."""
        log.warning("webhook_disabled", webhook=claim.webhook_id, reason="answered 410")
        error, now = "answered 410: the receiver is gone for good", self._now()
        async with self._database.write() as session:
            await session.execute(webhooks.set_state(claim.webhook_id, webhooks.DISABLED))
            await session.execute(
                webhooks.settle(claim, state=DeliveryState.DEAD, status=GONE, error=error, finished_at=now)
            )
            await session.execute(webhooks.bury_waiting(claim.webhook_id, error, now))
            await session.commit()

    async def _give_back(self, claim: Claim) -> None:
        async with self._database.write() as session:
            waiting = webhooks.settle(claim, state=DeliveryState.WAITING, next_at=self._now())
            await session.execute(waiting)
            await session.commit()


async def _survives(step: Callable[[], Awaitable[None]]) -> bool:
    """The loop outlives a database that is away: it says so and looks again."""
    try:
        await step()
    except Exception as error:
        log.warning("webhooks_not_looked_at", reason=str(error), hint="the next look tries again")
        return False
    return True
