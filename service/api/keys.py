"""`/v1/keys`: make, list, show, rotate, revoke."""

from typing import Annotated, Any

from litestar import Controller, Response, delete, get, post
from litestar.params import PathParameter

from core.db.statements import keys
from modelyard.specs import Key, KeyRequest, Page, RotationRequest
from service import issuing
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, IdempotencyKey, Limit
from service.auth import Scope, needs
from service.bodies import AnyRequest, decode, read_body, require_json
from service.idempotency import Once
from service.parts import Wired
from service.schema import body
from service.views import key_view

MAX_BYTES = 4096

KeyPath = Annotated[str, PathParameter(description="a key's id, not the key itself")]


class Keys(Controller):
    path = "/v1/keys"
    tags = ("keys",)
    opt = needs(Scope.ADMIN)

    @post(operation_class=body("application/json", KeyRequest))
    async def create(
        self, request: AnyRequest, parts: Wired, idempotency_key: IdempotencyKey = None
    ) -> Response[Any]:
        """201 and the key, which is shown this once. For another owner than one's own only where one's own is
        `default`."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        once = Once.of(request.user.owner, "POST /v1/keys", idempotency_key, raw)
        return await issuing.create(parts, request.user, decode(raw, KeyRequest), once)

    @get()
    async def list_all(
        self, request: AnyRequest, parts: Wired, limit: Limit = DEFAULT_LIMIT, after: After = None
    ) -> Page[Key]:
        """Those of one's own owner, or of all where that is `default`; revoked ones too."""
        async with parts.database.read() as session:
            query = keys.list_keys(issuing.owner_seen_by(request.user), after, limit)
            rows = list(await session.scalars(query))
        return page_of(rows, limit, key_view, lambda row: row.id)

    @get("/{key_id:str}")
    async def show(self, request: AnyRequest, parts: Wired, key_id: KeyPath) -> Key:
        async with parts.database.read() as session:
            query = keys.get_key(issuing.owner_seen_by(request.user), key_id)
            row = (await session.scalars(query)).one_or_none()
        if row is None:
            raise issuing.unknown_key(key_id)
        return key_view(row)

    @post(
        "/{key_id:str}/rotate",
        operation_class=body("application/json", RotationRequest, is_required=False),
    )
    async def rotate(self, request: AnyRequest, parts: Wired, key_id: KeyPath) -> Response[Key]:
        """201 and a new key of the same name, owner and scopes, shown this once. The old one works for
        `overlap_s` more seconds."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        asked = decode(raw, RotationRequest) if raw else RotationRequest()
        return await issuing.rotate(parts, request.user, key_id, asked)

    @delete("/{key_id:str}")
    async def revoke(self, request: AnyRequest, parts: Wired, key_id: KeyPath) -> None:
        """It works no more, at once for requests to this process, within two seconds for any other. Its row
        stays."""
        await issuing.revoke(parts, request.user, key_id)
