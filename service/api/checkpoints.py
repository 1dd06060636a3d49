"""`/v1/checkpoints`: one checkpoint, and its weights as PyTorch users expect them."""

import asyncio

from litestar import Controller, Response, get
from litestar.response import Stream

from core.db.models import Checkpoint as Row
from core.db.statements import checkpoints
from core.errors import Gone, NotFound
from modelyard.specs import Checkpoint
from service.api.parameters import CheckpointPath
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.files import send_file
from service.parts import Parts, Wired
from service.views import checkpoint_view


class Checkpoints(Controller):
    path = "/v1/checkpoints/{checkpoint_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get()
    async def show(self, request: AnyRequest, parts: Wired, checkpoint_id: CheckpointPath) -> Checkpoint:
        return checkpoint_view(await _one(parts, request.user.owner, checkpoint_id))

    @get("/weights", media_type="application/octet-stream")
    async def weights(
        self, request: AnyRequest, parts: Wired, checkpoint_id: CheckpointPath
    ) -> Response[bytes] | Stream:
        """A plain `state_dict` for `torch.load(path, weights_only=True)`; with Range, and `ETag` = sha256."""
        row = await _one(parts, request.user.owner, checkpoint_id)
        if row.state != "ready":
            raise _gone(row)
        try:
            path = await asyncio.to_thread(parts.storage.fetch, row.weights_key)
        except FileNotFoundError as error:  # collected since the row was read
            raise _gone(row) from error
        return send_file(request, path, sha256=row.weights_sha256, filename=f"{row.id}.pt")


async def _one(parts: Parts, owner: str, checkpoint_id: str) -> Row:
    async with parts.database.read() as session:
        row = (await session.scalars(checkpoints.get_checkpoint(owner, checkpoint_id))).one_or_none()
    if row is None:
        raise NotFound(
            f"You have no checkpoint {checkpoint_id[:100]}; GET /v1/jobs/{{id}}/checkpoints lists them."
        )
    return row


def _gone(row: Row) -> Gone:
    return Gone(
        f"The weights of {row.id} are {row.state}: a job keeps its newest and its best checkpoints. "
        f"GET /v1/jobs/{row.job_id}/checkpoints lists what is there.",
        code="collected",
    )
