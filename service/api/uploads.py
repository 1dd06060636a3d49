"""`/v1/uploads`: bytes in pieces, resumed where they broke off."""

from typing import Annotated

from litestar import Controller, Response, delete, head, patch, post
from litestar.params import HeaderParameter, PathParameter

from core.db.models import Upload as Row
from core.errors import UnsupportedMedia
from modelyard.specs import Upload, UploadRequest
from service import resumable
from service.auth import Scope, needs
from service.bodies import AnyRequest, chunks, decode, read_body, require_json
from service.parts import Wired
from service.schema import body

PIECE_TYPE = "application/offset+octet-stream"
MAX_REQUEST_BYTES = 16 * 1024

UploadPath = Annotated[str, PathParameter(description="an upload's id")]
Offset = Annotated[
    int, HeaderParameter(name="Upload-Offset", ge=0, description="where the first byte of the body belongs")
]


class Uploads(Controller):
    path = "/v1/uploads"
    tags = ("uploads",)

    @post(opt=needs(Scope.TRAIN), operation_class=body("application/json", UploadRequest))
    async def create(self, request: AnyRequest, parts: Wired) -> Response[Upload]:
        """Announces so many bytes. PATCH brings them; 24 h after the last piece what has come is removed."""
        require_json(request)
        raw = await read_body(request, limit=MAX_REQUEST_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        row = await resumable.create(parts, request.user.owner, decode(raw, UploadRequest))
        view = Upload(row.id, row.offset, row.length, row.expires_at)
        return Response(view, headers={"Location": f"/v1/uploads/{row.id}"})

    @head("/{upload_id:str}", opt=needs(Scope.READ))
    async def show(self, request: AnyRequest, parts: Wired, upload_id: UploadPath) -> Response[None]:
        """How much has come, in `Upload-Offset`, of how much, in `Upload-Length`, and until when it is kept,
        in `Upload-Expires` (RFC 3339)."""
        row = await resumable.find(parts, request.user.owner, upload_id)
        return Response(None, headers=_headers(row, row.offset))

    @patch(
        "/{upload_id:str}",
        opt=needs(Scope.TRAIN),
        request_max_body_size=None,
        status_code=204,
        operation_class=body(PIECE_TYPE),
    )
    async def receive(
        self, request: AnyRequest, parts: Wired, upload_id: UploadPath, offset: Offset
    ) -> Response[None]:
        """A piece. 204 and the new offset; 409 and the true one where the upload stands elsewhere. What came
        before a connection broke stays."""
        if (kind := request.content_type[0]) != PIECE_TYPE:
            raise UnsupportedMedia(f"Expected Content-Type {PIECE_TYPE}; {kind[:100] or 'none'} came.")
        row = await resumable.find(parts, request.user.owner, upload_id)
        left = max(0, row.length - offset)
        came = chunks(request, limit=left, timeout_s=parts.settings.chunk_timeout_s)
        return Response(None, headers=_headers(row, await resumable.receive(parts, row, offset, came)))

    @delete("/{upload_id:str}", opt=needs(Scope.TRAIN))
    async def remove(self, request: AnyRequest, parts: Wired, upload_id: UploadPath) -> None:
        """409 while a job that has not ended reads it."""
        await resumable.remove(parts, request.user.owner, upload_id)


def _headers(row: Row, offset: int) -> dict[str, str]:
    return {
        "Upload-Offset": str(offset),
        "Upload-Length": str(row.length),
        "Upload-Expires": row.expires_at.isoformat(),
        "Cache-Control": "no-store",
    }
