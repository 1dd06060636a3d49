"""Weights as a file: a checkpoint's own, or what is made of it once."""

import asyncio

from litestar import Response
from litestar.response import Stream

from core.db.models import Checkpoint, Version
from core.db.statements import models
from core.errors import Conflict, Gone
from core.export import stored
from core.export.make import require_extra
from modelyard.specs import WeightsFormat
from service.bodies import AnyRequest
from service.exporter import Wanted
from service.files import REVALIDATED, send_file
from service.parts import Parts

#: They hold how the net computes, and are compared with the golden samples of a version.
GRAPHS = frozenset({WeightsFormat.ONNX, WeightsFormat.TORCH_EXPORT})


async def send_weights(
    request: AnyRequest,
    parts: Parts,
    row: Checkpoint,
    version: Version | None,
    kind: WeightsFormat,
    *,
    name: str,
) -> Response[bytes] | Stream:
    """`version` is what was registered from the checkpoint, if anything was. Raises Gone where it was
    collected, Conflict where there is nothing that a graph could be compared with."""
    if row.state != "ready":
        raise _gone(row)
    filename = f"{name}.{kind.suffix}"
    if kind is WeightsFormat.PT:
        try:
            path = await asyncio.to_thread(parts.storage.fetch, row.weights_key)
        except FileNotFoundError as error:  # collected since the row was read
            raise _gone(row) from error
        return send_file(request, path, sha256=row.weights_sha256, filename=filename)
    if kind in GRAPHS:
        _require_golden(row, version)
    if kind is WeightsFormat.ONNX:
        require_extra()
    key = await parts.exporter.key_of(Wanted(row, version, kind))
    try:
        path = await asyncio.to_thread(parts.storage.fetch, key)
    except FileNotFoundError as error:
        raise _gone(row) from error
    sha256 = stored.sha256_of(key)
    return send_file(request, path, sha256=sha256, filename=filename, caching=REVALIDATED)


def _require_golden(row: Checkpoint, version: Version | None) -> None:
    if version is None:
        raise Conflict(
            f"A graph is compared with a version's golden samples before it is given away, and no version "
            f"was registered from {row.id}. Its weights come as pt or safetensors; a job's best checkpoint "
            "becomes a version when the job succeeds.",
            code="no_version",
        )
    if version.state != models.READY:
        raise Conflict(
            f"{version.model}@{version.version} is {version.state}: its golden samples did not come out as "
            "they had. Its weights come as pt or safetensors.",
            code="version_not_ready",
        )


def _gone(row: Checkpoint) -> Gone:
    return Gone(
        f"The weights of {row.id} are {row.state}: a job keeps its newest and its best checkpoints. "
        f"GET /v1/jobs/{row.job_id}/checkpoints lists what is there.",
        code="collected",
    )
