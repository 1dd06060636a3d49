"""`/v1/datasets/{name}/versions/{v}/data.arrow`: a dataset's rows as they are read, to take along."""

import asyncio

from litestar import Controller, Response, get
from litestar.response import Stream

from core.errors import Gone
from service.api.datasets import one_version
from service.api.parameters import NamePath, VersionPath
from service.api.samples import data_key, not_ready
from service.auth import Scope, needs
from service.bodies import AnyRequest
from service.files import send_file
from service.parts import Wired
from service.schema import answers_file
from service.views import manifest_of


class DatasetFiles(Controller):
    path = "/v1/datasets/{name:str}/versions/{version:int}"
    tags = ("datasets",)
    opt = needs(Scope.READ)

    @get("/data.arrow", media_type="application/octet-stream", responses=answers_file())
    async def data(
        self, request: AnyRequest, parts: Wired, name: NamePath, version: VersionPath
    ) -> Response[bytes] | Stream:
        """An Arrow IPC file, one row a sample, split after split; with Range, and `ETag` = sha256."""
        row = await one_version(parts, request.user.owner, name, version)
        if row.state != "ready":
            raise not_ready(row)
        try:
            path = await asyncio.to_thread(parts.storage.fetch, data_key(row))
        except FileNotFoundError as error:  # deleted since the row was read
            raise Gone(f"The data of {name}@{version} are deleted.", code="deleted") from error
        return send_file(
            request, path, sha256=manifest_of(row).data_sha256, filename=f"{name}-{version}.arrow"
        )
