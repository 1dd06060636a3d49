"""`/v1/checkpoints`: one checkpoint, and its weights to take along."""

from litestar import Controller, Response, get
from litestar.response import Stream

from core.db.models import Checkpoint as Row
from core.db.statements import checkpoints, models
from core.errors import NotFound
from modelyard.specs import Checkpoint, WeightsFormat
from service.api.parameters import CheckpointPath, FormatQuery
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.parts import Parts, Wired
from service.schema import answers_file
from service.views import checkpoint_view
from service.weights import send_weights


class Checkpoints(Controller):
    path = "/v1/checkpoints/{checkpoint_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get()
    async def show(self, request: AnyRequest, parts: Wired, checkpoint_id: CheckpointPath) -> Checkpoint:
        return checkpoint_view(await _one(parts, request.user.owner, checkpoint_id))

    @get("/weights", media_type="application/octet-stream", responses=answers_file())
    async def weights(
        self,
        request: AnyRequest,
        parts: Wired,
        checkpoint_id: CheckpointPath,
        kind: FormatQuery = WeightsFormat.PT,
    ) -> Response[bytes] | Stream:
        """`pt`: a plain `state_dict` for `torch.load(path, weights_only=True)`; other formats are made at the
        first request for them. With Range, and `ETag` = sha256. 503 and `Retry-After` where an export takes
        longer than a request is held; 422 with the reason for a net that a format cannot hold."""
        row = await _one(parts, request.user.owner, checkpoint_id)
        async with parts.database.read() as session:
            version = (await session.scalars(models.version_of(row.id))).one_or_none()
        return await send_weights(request, parts, row, version, kind, name=row.id)


async def _one(parts: Parts, owner: str, checkpoint_id: str) -> Row:
    async with parts.database.read() as session:
        row = (await session.scalars(checkpoints.get_checkpoint(owner, checkpoint_id))).one_or_none()
    if row is None:
        raise NotFound(
            f"You have no checkpoint {checkpoint_id[:100]}; GET /v1/jobs/{{id}}/checkpoints lists them."
        )
    return row
