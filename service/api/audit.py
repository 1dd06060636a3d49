"""`/v1/audit`: who asked for which change."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from core.db.statements import audit
from modelyard.specs import AuditEntry, Page
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, Limit
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.issuing import owner_seen_by
from service.parts import Wired
from service.views import audit_view

KeyQuery = Annotated[
    str | None,
    QueryParameter(name="key", max_length=40, description="only what the key of this id asked for"),
]


class Audit(Controller):
    path = "/v1/audit"
    tags = ("keys",)
    opt = needs(Scope.ADMIN)

    @get()
    async def list_all(
        self,
        request: AnyRequest,
        parts: Wired,
        key_id: KeyQuery = None,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[AuditEntry]:
        """Every request that changed something, the newest first: of one's own owner, or of all where that is
        `default`. An entry is written with the change itself."""
        async with parts.database.read() as session:
            query = audit.list_entries(owner_seen_by(request.user), key_id=key_id, after=after, limit=limit)
            rows = list(await session.scalars(query))
        return page_of(rows, limit, audit_view, lambda row: row.id)
