"""`/v1/jobs/{id}/eject.zip`: a job as a script of plain PyTorch."""

import asyncio
import hashlib
from typing import Any

from litestar import Controller, Response, get

from core.db.models import Checkpoint, Dataset
from core.db.models import Job as Row
from core.db.statements import checkpoints, datasets
from core.eject import coverage
from core.eject.archive import Source, eject, fingerprint
from core.eject.script import Trained
from core.errors import Conflict, Gone
from core.nets import artifacts
from modelyard.specs import JobState
from service.api.jobs import require_job
from service.api.parameters import JobPath
from service.api.samples import data_key
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.parts import Parts, Wired
from service.views import manifest_of


class Ejects(Controller):
    path = "/v1/jobs/{job_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get("/eject.zip", media_type="application/zip")
    async def eject(self, request: AnyRequest, parts: Wired, job_id: JobPath) -> Response[bytes]:
        """`train.py`, what it needs, and how to fetch the data: on a CPU it gives the weights of the job's
        last checkpoint to the bit. 409 for a job that has not succeeded, or that no script can be written
        for, with every reason."""
        job, dataset, last = await _found(parts, request.user.owner, job_id)
        archive = await asyncio.to_thread(_ejected, parts, job, dataset, last)
        headers = {
            "ETag": f'"{hashlib.sha256(archive).hexdigest()}"',
            "Content-Disposition": f'attachment; filename="{job.name}-eject.zip"',
        }
        return Response(archive, media_type="application/zip", headers=headers)


async def _found(parts: Parts, owner: str, job_id: str) -> tuple[Row, Dataset, Checkpoint]:
    async with parts.database.read() as session:
        job = await require_job(session, owner, job_id)
        dataset = (await session.scalars(datasets.dataset_of_job(job.dataset_id))).one()
        ready = (await session.scalars(checkpoints.ready_checkpoints(job_id))).all()
    if job.state != JobState.SUCCEEDED:
        raise Conflict(
            f"{job_id} is {job.state}; a script repeats a job that has succeeded. "
            f"Wait for it with GET /v1/jobs/{job_id}?wait=30.",
            code="job_not_succeeded",
        )
    if job.start_checkpoint_id is not None:
        raise Conflict(
            f"{job_id} began with the weights of {job.start_checkpoint_id}, and a script begins with none; "
            "eject the job that they come from.",
            code=coverage.CODE,
        )
    if not ready:
        raise Gone(
            f"{job_id} has no checkpoint left to compare the script's weights with.", code="no_checkpoint"
        )
    return job, dataset, ready[0]


def _ejected(parts: Parts, job: Row, dataset: Dataset, last: Checkpoint) -> bytes:
    """Reads weights and data: not on the event loop."""
    try:
        arrow = parts.storage.fetch(data_key(dataset))
    except FileNotFoundError as error:
        raise Gone(f"The data of {dataset.name}@{dataset.version} are deleted.", code="deleted") from error
    weights: dict[str, Any] = artifacts.load(parts.storage.fetch(last.weights_key), is_mapped=True)
    return eject(
        Source(
            job=job.id,
            spec=job.spec,
            trained=Trained(last.epoch, last.step, job.resolved),
            arrow=arrow,
            manifest=manifest_of(dataset),
            dataset=f"{dataset.name}@{dataset.version}",
            path=f"/v1/datasets/{dataset.name}/versions/{dataset.version}/data.arrow",
            weights=fingerprint(weights),
        )
    )
