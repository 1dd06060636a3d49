"""`/v1/datasets/{name}/samples` and `preview.png`: a look at the rows."""

import asyncio
from pathlib import Path
from typing import Annotated

from litestar import Controller, Response, get
from litestar.params import QueryParameter

from core.data.preview import preview_png, read_rows
from core.db.models import Dataset as Row
from core.db.statements import datasets
from core.errors import Conflict, Gone, NotFound
from core.storage import keys
from modelyard.specs import Sample
from modelyard.specs import Samples as SamplesView
from service.api.datasets import newest
from service.api.parameters import NamePath
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.parts import Parts, Wired
from service.views import manifest_of

Split = Annotated[str, QueryParameter(max_length=63, description="train, val or test")]
Few = Annotated[int, QueryParameter(ge=1, le=100, description="how many")]
Side = Annotated[int, QueryParameter(ge=1, le=10)]


class Samples(Controller):
    path = "/v1/datasets/{name:str}"
    tags = ("datasets",)
    opt = needs(Scope.READ)

    @get("/samples")
    async def samples(
        self, request: AnyRequest, parts: Wired, name: NamePath, split: Split = "train", limit: Few = 9
    ) -> SamplesView:
        """The first rows of a split of the newest ready version."""
        row = await _readable(parts, request.user.owner, name)
        manifest = manifest_of(row)
        if split not in manifest.splits:
            known = ", ".join(manifest.splits)
            raise NotFound(f"{name}@{row.version} has no split {split!r}; it has {known}.")
        data = await _data(parts, row)
        rows = await asyncio.to_thread(read_rows, data, manifest, split, limit)
        return SamplesView(split, [Sample(index, values) for index, values in enumerate(rows)])

    @get("/preview.png", media_type="image/png")
    async def preview(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        rows: Side = 3,
        cols: Side = 3,
    ) -> Response[bytes]:
        """A grid of images of the training split with their labels."""
        row = await _readable(parts, request.user.owner, name)
        data = await _data(parts, row)
        png = await asyncio.to_thread(preview_png, data, manifest_of(row), rows, cols)
        return Response(png, media_type="image/png")


async def _data(parts: Parts, row: Row) -> Path:
    try:
        return await asyncio.to_thread(parts.storage.fetch, data_key(row))
    except FileNotFoundError as error:  # deleted since the row was read
        raise Gone(f"The data of {row.name}@{row.version} are deleted.", code="deleted") from error


def data_key(row: Row) -> str:
    return keys.data_key(row.id, row.fence)


async def _readable(parts: Parts, owner: str, name: str) -> Row:
    """The newest ready version; where there is none, why."""
    latest = await newest(parts, owner, name)
    if latest.state == "ready":
        return latest
    async with parts.database.read() as session:
        ready = (await session.scalars(datasets.newest_version(owner, name, state="ready"))).one_or_none()
    if ready is not None:
        return ready
    raise not_ready(latest)


def not_ready(row: Row) -> Conflict:
    if row.state == "failed":
        detail = (row.error or {}).get("detail", "")
        return Conflict(f"{row.name}@{row.version} could not be read: {detail}", code="dataset_failed")
    return Conflict(
        f"{row.name}@{row.version} is still being read; wait with GET /v1/datasets/{row.name}?wait=30.",
        code="dataset_not_ready",
        retry_after_s=2,
    )
