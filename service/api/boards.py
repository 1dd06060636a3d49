"""`/v1/jobs/{id}/tensorboard.zip`: what TensorBoard shows of a job."""

import asyncio
from pathlib import Path

from litestar import Controller, Response, get
from litestar.response import Stream

from core import boards
from core.errors import NotFound
from core.storage import Storage
from core.storage.durable import sha256_file
from service.api.jobs import require_job
from service.api.parameters import JobPath
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.files import REVALIDATED, send_file
from service.parts import Wired
from service.schema import answers_file

#: An archive may be followed by a newer one, and go, while it is fetched.
TRIES = 3


class Boards(Controller):
    path = "/v1/jobs/{job_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get("/tensorboard.zip", media_type="application/zip", responses=answers_file("application/zip"))
    async def tensorboard(
        self, request: AnyRequest, parts: Wired, job_id: JobPath
    ) -> Response[bytes] | Stream:
        """The job's event files for `tensorboard --logdir`, as of its last checkpoint or its end; with Range,
        and `ETag` = sha256."""
        async with parts.database.read() as session:
            job = await require_job(session, request.user.owner, job_id)
        path, sha256 = await asyncio.to_thread(_newest, parts.storage, job.id)
        return send_file(
            request,
            path,
            sha256=sha256,
            filename=f"{job.name}-{job.id}.zip",
            media_type="application/zip",
            caching=REVALIDATED,
        )


def _newest(storage: Storage, job_id: str) -> tuple[Path, str]:
    """A local file, and its SHA-256."""
    for _ in range(TRIES):
        keys = boards.archives(storage, job_id)
        if not keys:
            break
        try:
            path = storage.fetch(keys[-1])
            return path, sha256_file(path)
        except FileNotFoundError:
            continue
    raise NotFound(
        f"{job_id} has no event files yet: they are stored with a checkpoint, half a minute apart, and at "
        "the end of the job, unless its worker has MODELYARD_TENSORBOARD=off.",
        code="no_board",
    )
