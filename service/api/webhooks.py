"""`/v1/webhooks`: who is told when a job ends, a version is registered, an alias moves."""

from http import HTTPStatus
from typing import Annotated

from litestar import Controller, Response, delete, get, post
from litestar.params import PathParameter, QueryParameter

from core import ids
from core.db.models import Webhook as Row
from core.db.models import utc_now
from core.db.statements import webhooks as statements
from core.errors import Conflict, NotFound
from modelyard.specs import (
    CreatedWebhook,
    Delivery,
    DeliveryState,
    Page,
    Replayed,
    ReplayRequest,
    Webhook,
    WebhookRequest,
)
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, Limit
from service.auth import Scope, needs
from service.bodies import AnyRequest, decode, read_body, require_json
from service.parts import Parts, Wired
from service.schema import body
from service.views import delivery_view, webhook_view
from service.webhooks.signing import new_secret, shown
from service.webhooks.targets import read_target

MAX_BYTES = 8192
#: Of one owner.
MAX_WEBHOOKS = 20

WebhookPath = Annotated[str, PathParameter(description="a webhook's id")]
StateQuery = Annotated[DeliveryState | None, QueryParameter(name="state")]


class Webhooks(Controller):
    path = "/v1/webhooks"
    tags = ("webhooks",)

    @post(opt=needs(Scope.TRAIN), operation_class=body("application/json", WebhookRequest))
    async def create(self, request: AnyRequest, parts: Wired) -> Response[CreatedWebhook]:
        """The secret in the answer is shown this once. What happened before is not told."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        wanted = decode(raw, WebhookRequest)
        read_target(wanted.url, parts.poster.allowed)
        owner, secret = request.user.owner, new_secret()
        row = Row(
            id=ids.webhook_id(),
            owner=owner,
            url=wanted.url,
            events=list(dict.fromkeys(wanted.events)),
            secret=secret,
            state=statements.ENABLED,
            created_at=utc_now(),
        )
        async with parts.database.write() as session:
            if (await session.scalars(statements.count_webhooks(owner))).one() >= MAX_WEBHOOKS:
                raise Conflict(
                    f"You have {MAX_WEBHOOKS} webhooks, which is as many as there may be; delete one first.",
                    code="too_many_webhooks",
                )
            session.add(row)
            await session.commit()
        view = CreatedWebhook(row.id, row.url, row.events, "enabled", row.created_at, shown(secret))
        headers = {"Location": f"/v1/webhooks/{row.id}", "Cache-Control": "no-store"}
        return Response(view, headers=headers)

    @get(opt=needs(Scope.READ))
    async def list_all(
        self, request: AnyRequest, parts: Wired, limit: Limit = DEFAULT_LIMIT, after: After = None
    ) -> Page[Webhook]:
        async with parts.database.read() as session:
            query = statements.list_webhooks(request.user.owner, after, limit)
            rows = list(await session.scalars(query))
        return page_of(rows, limit, webhook_view, lambda row: row.id)

    @get("/{webhook_id:str}", opt=needs(Scope.READ))
    async def show(self, request: AnyRequest, parts: Wired, webhook_id: WebhookPath) -> Webhook:
        return webhook_view(await _one(parts, request.user.owner, webhook_id))

    @delete("/{webhook_id:str}", opt=needs(Scope.TRAIN))
    async def remove(self, request: AnyRequest, parts: Wired, webhook_id: WebhookPath) -> None:
        """What waits for it goes too; a message that is just being sent may still arrive."""
        async with parts.database.write() as session:
            query = statements.delete_webhook(request.user.owner, webhook_id)
            if (await session.scalars(query)).one_or_none() is None:
                raise _unknown(webhook_id)
            await session.commit()

    @get("/{webhook_id:str}/deliveries", opt=needs(Scope.READ))
    async def deliveries(
        self,
        request: AnyRequest,
        parts: Wired,
        webhook_id: WebhookPath,
        delivery_state: StateQuery = None,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[Delivery]:
        """Every message to this webhook, newest first; what has ended is kept for 30 days."""
        await _one(parts, request.user.owner, webhook_id)
        async with parts.database.read() as session:
            query = statements.list_deliveries(webhook_id, state=delivery_state, after=after, limit=limit)
            rows = list(await session.scalars(query))
        return page_of(rows, limit, delivery_view, lambda row: row.message_id)

    @post(
        "/{webhook_id:str}/replay",
        opt=needs(Scope.TRAIN),
        status_code=HTTPStatus.ACCEPTED,
        operation_class=body("application/json", ReplayRequest, is_required=False),
    )
    async def replay(self, request: AnyRequest, parts: Wired, webhook_id: WebhookPath) -> Replayed:
        """Sends all dead letters again, or the one message that is named, with the ids that they had. A
        webhook that a 410 disabled is enabled by it."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        asked = decode(raw, ReplayRequest) if raw else ReplayRequest()
        async with parts.database.write() as session:
            query = statements.lock_webhook(request.user.owner, webhook_id)
            row = (await session.scalars(query)).one_or_none()
            if row is None:
                raise _unknown(webhook_id)
            row.state = statements.ENABLED
            again = list(await session.scalars(statements.replay(row.id, asked.delivery, utc_now())))
            if asked.delivery is not None and not again:
                raise NotFound(
                    f"{webhook_id} has no message {asked.delivery} that has ended; "
                    f"GET /v1/webhooks/{webhook_id}/deliveries lists them."
                )
            await session.commit()
        return Replayed(len(again))


async def _one(parts: Parts, owner: str, webhook_id: str) -> Row:
    async with parts.database.read() as session:
        row = (await session.scalars(statements.get_webhook(owner, webhook_id))).one_or_none()
    if row is None:
        raise _unknown(webhook_id)
    return row


def _unknown(webhook_id: str) -> NotFound:
    return NotFound(f"You have no webhook {webhook_id[:100]}; GET /v1/webhooks lists them.")
