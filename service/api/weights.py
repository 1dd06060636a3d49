"""`/v1/models/{name}/versions/{v}/weights`: the weights of a version, in the formats of other programs."""

from litestar import Controller, Response, get
from litestar.response import Stream

from core.db.statements import models
from modelyard.specs import WeightsFormat
from service.api.parameters import FormatQuery, NamePath, VersionPath
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.models import require_model, require_version
from service.parts import Wired
from service.schema import answers_file
from service.weights import send_weights


class VersionWeights(Controller):
    path = "/v1/models/{name:str}/versions/{version:int}"
    tags = ("models",)
    opt = needs(Scope.READ)

    @get("/weights", media_type="application/octet-stream", responses=answers_file())
    async def weights(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        version: VersionPath,
        kind: FormatQuery = WeightsFormat.PT,
    ) -> Response[bytes] | Stream:
        """Those of its checkpoint: see `/v1/checkpoints/{id}/weights`."""
        owner = request.user.owner
        async with parts.database.read() as session:
            await require_model(session, owner, name)
            row = await require_version(session, owner, name, version)
            checkpoint = (await session.scalars(models.weights_of(row.id))).one()
        return await send_weights(request, parts, checkpoint, row, kind, name=f"{name}-{version}")
