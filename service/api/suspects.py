"""`/v1/jobs/{id}/suspects`: the rows that a trained net doubts, as a list and as a picture."""

import asyncio
from typing import Annotated

import msgspec
from litestar import Controller, Response, get
from litestar.params import QueryParameter

from core.data.preview import captioned_png
from core.db.models import Dataset
from core.db.models import Job as Row
from core.db.statements import datasets
from core.errors import Conflict, Gone, NotFound
from core.storage.keys import suspects_key
from modelyard.specs import JobState, Suspects
from service.api.jobs import require_job
from service.api.parameters import JobPath
from service.api.samples import Split, data_key
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.parts import Parts, Wired
from service.views import manifest_of

Many = Annotated[int, QueryParameter(ge=1, le=500, description="how many")]
Side = Annotated[int, QueryParameter(ge=1, le=20)]

_decode = msgspec.json.Decoder(dict[str, Suspects]).decode


class SuspectRows(Controller):
    path = "/v1/jobs/{job_id:str}"
    tags = ("jobs",)
    opt = needs(Scope.READ)

    @get("/suspects")
    async def suspects(
        self, request: AnyRequest, parts: Wired, job_id: JobPath, split: Split = "train", limit: Many = 50
    ) -> Suspects:
        """Likely wrong labels of a classification, else the rows with the greatest losses; the worst
        first. 409 for a job that has not succeeded."""
        job, _ = await _ended(parts, request.user.owner, job_id)
        found = await _of_split(parts, job, split)
        found.items = found.items[:limit]
        return found

    @get("/suspects.png", media_type="image/png")
    async def picture(
        self,
        request: AnyRequest,
        parts: Wired,
        job_id: JobPath,
        split: Split = "train",
        rows: Side = 4,
        cols: Side = 4,
    ) -> Response[bytes]:
        """The same as a grid of images, each over `given -> predicted`."""
        job, dataset = await _ended(parts, request.user.owner, job_id)
        found = await _of_split(parts, job, split)
        if found.num_likely is None:
            raise Conflict(
                f"A picture shows labels beside what was predicted, and {job_id} has no classes; "
                f"GET /v1/jobs/{job_id}/suspects lists its rows.",
                code="no_classes",
            )
        captions = {item.row: f"{item.label} -> {item.predicted}" for item in found.items[: rows * cols]}
        try:
            arrow = await asyncio.to_thread(parts.storage.fetch, data_key(dataset))
        except FileNotFoundError as error:
            raise Gone(
                f"The data of {dataset.name}@{dataset.version} are deleted.", code="deleted"
            ) from error
        png = await asyncio.to_thread(captioned_png, arrow, manifest_of(dataset), captions, cols)
        return Response(png, media_type="image/png")


async def _ended(parts: Parts, owner: str, job_id: str) -> tuple[Row, Dataset]:
    """Raises Conflict for a job that has not succeeded."""
    async with parts.database.read() as session:
        job = await require_job(session, owner, job_id)
        dataset = (await session.scalars(datasets.dataset_of_job(job.dataset_id))).one()
    if job.state != JobState.SUCCEEDED:
        raise Conflict(
            f"{job_id} is {job.state}; its rows are judged by the net of a job that has succeeded. "
            f"Wait for it with GET /v1/jobs/{job_id}?wait=30.",
            code="job_not_succeeded",
        )
    return job, dataset


async def _of_split(parts: Parts, job: Row, split: str) -> Suspects:
    try:
        path = await asyncio.to_thread(parts.storage.fetch, suspects_key(job.id, job.fence))
    except FileNotFoundError as error:
        raise NotFound(f"{job.id} was trained before rows were judged; train it again.") from error
    found = _decode(await asyncio.to_thread(path.read_bytes))
    if split not in found:
        raise NotFound(f"No rows of {split!r} trained or validated in {job.id}; it has {', '.join(found)}.")
    return found[split]
