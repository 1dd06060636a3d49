"""`/v1/models/{name}/aliases/{alias}`: which version a name stands for, and what it stood for before."""

import re

from litestar import Controller, delete, get, post, put

from core.db.statements import aliases
from core.errors import Invalid, NotFound
from modelyard.specs import AliasMove, AliasUpdate, Model, Page, RollbackRequest
from modelyard.specs.common import NAME_PATTERN
from service.aliases import remove_alias, roll_back, set_alias
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, AliasPath, Limit, NamePath
from service.auth import Scope, needs
from service.bodies import AnyRequest, decode, read_body, require_json
from service.models import require_model, unknown_alias
from service.parts import Wired
from service.schema import body
from service.views import alias_move_view

MAX_BYTES = 4096

#: Words that already mean a version.
TAKEN = frozenset({"latest", "best"})

#: Moves have no ids: their cursor is the number of the move.
CURSOR = "move"
MAX_SEQ = 2**63 - 1


class Aliases(Controller):
    path = "/v1/models/{name:str}/aliases/{alias:str}"
    tags = ("models",)

    @put(opt=needs(Scope.PROMOTE), operation_class=body("application/json", AliasUpdate))
    async def point(self, request: AnyRequest, parts: Wired, name: NamePath, alias: AliasPath) -> Model:
        """Lets the alias name a ready version, at once for every prediction that comes after. With `require`
        only where that version is as good as the one that the alias names: else 409 with both numbers."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        wanted = decode(raw, AliasUpdate)
        if not _is_alias(alias):
            raise Invalid(
                f"An alias matches {NAME_PATTERN}, is not all digits and not {' or '.join(sorted(TAKEN))}; "
                f"got {alias[:100]!r}.",
                code="invalid_alias",
            )
        return await set_alias(parts, request.user, name, alias, wanted)

    @delete(opt=needs(Scope.PROMOTE))
    async def remove(self, request: AnyRequest, parts: Wired, name: NamePath, alias: AliasPath) -> None:
        """Its history stays to be read."""
        _require_alias(name, alias)
        await remove_alias(parts, request.user, name, alias)

    @post(
        "/rollback",
        opt=needs(Scope.PROMOTE),
        status_code=200,
        operation_class=body("application/json", RollbackRequest, is_required=False),
    )
    async def rollback(self, request: AnyRequest, parts: Wired, name: NamePath, alias: AliasPath) -> Model:
        """To the version that the alias named before, and with each further call one further back; 409 where
        there is none."""
        require_json(request)
        raw = await read_body(request, limit=MAX_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        asked = decode(raw, RollbackRequest) if raw else RollbackRequest()
        _require_alias(name, alias)
        return await roll_back(parts, request.user, name, alias, asked.reason)

    @get("/history", opt=needs(Scope.READ))
    async def history(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        alias: AliasPath,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[AliasMove]:
        """Every move, the newest first: who, when, why, from which version to which."""
        owner = request.user.owner
        _require_alias(name, alias)
        async with parts.database.read() as session:
            model = await require_model(session, owner, name)
            query = aliases.moves_before(owner, name, alias, _seq_of(after), limit)
            rows = list(await session.scalars(query))
        if not rows and after is None:
            raise unknown_alias(model, alias)
        return page_of(rows, limit, alias_move_view, lambda row: f"{CURSOR}_{row.seq:x}")


def _is_alias(alias: str) -> bool:
    return re.fullmatch(NAME_PATTERN, alias) is not None and not alias.isdigit() and alias not in TAKEN


def _require_alias(name: str, alias: str) -> None:
    if not _is_alias(alias):
        raise NotFound(f"{alias[:100]!r} is no alias; GET /v1/models/{name[:100]} lists those there are.")


def _seq_of(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    return min(int(cursor.rpartition("_")[2], 16), MAX_SEQ)
