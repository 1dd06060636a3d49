"""Resumable uploads: bytes sent in pieces, which go on where a connection broke off."""

from datetime import datetime

from modelyard import specs
from modelyard.errors import Conflict, ConnectError, ConnectionLost, InvalidArgument, Timeout, Unavailable
from modelyard.resources.uploads import OnProgress, Source, Upload, open_upload
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation
from modelyard.transport.story import Call, InThread, Reply, Sleep, Story

#: What a request holds, and what is sent again at worst.
PIECE_BYTES = 8 * 1024 * 1024

#: What a piece may meet that is mended by asking where the upload stands and going on from there.
MENDABLE = (ConnectError, ConnectionLost, Timeout, Unavailable, Conflict)


class Uploads(Resource[R]):
    """`client.uploads`."""

    @operation
    def create(self, source: Source, on_progress: OnProgress | None = None) -> Story[specs.Upload]:
        """Upload a file in pieces; its `id` may then be named by a job's weights or by a new dataset.

        A broken connection is taken up again where it broke. Raises OSError; InvalidArgument for a source
        that is empty or cannot be read twice.
        """
        file: Upload = yield InThread(lambda: open_upload(source, None))
        try:
            asked = specs.UploadRequest(file.label or "upload", _length(file))
            call = calls.send_json("POST", "/v1/uploads", asked, is_repeatable=False)
            upload = yield from self._fetch(call, specs.Upload)
            return (yield from self._fill(upload, file, on_progress))
        finally:
            file.close()

    @operation
    def resume(
        self, upload_id: str, source: Source, on_progress: OnProgress | None = None
    ) -> Story[specs.Upload]:
        """Send what is still missing of an upload that was begun from the same bytes."""
        file: Upload = yield InThread(lambda: open_upload(source, None))
        try:
            upload = yield from self._state(upload_id)
            if upload.length != (length := _length(file)):
                raise InvalidArgument(
                    f"expected the {upload.length} bytes that {upload_id} was begun with, got {length}"
                )
            return (yield from self._fill(upload, file, on_progress))
        finally:
            file.close()

    @operation
    def get(self, upload_id: str) -> Story[specs.Upload]:
        """How much of it has come."""
        return (yield from self._state(upload_id))

    @operation
    def delete(self, upload_id: str) -> Story[None]:
        """Raises Conflict while a job that has not ended reads it."""
        yield from self._send(calls.delete(path("/v1/uploads/{}", upload_id)))

    def _fill(
        self, upload: specs.Upload, file: Upload, on_progress: OnProgress | None
    ) -> Story[specs.Upload]:
        offset, failures, backoff_s = upload.offset, 0, calls.BACKOFF_S
        while True:
            piece: bytes = yield InThread(lambda: file.piece(offset, PIECE_BYTES))  # noqa: B023 - run at once
            before, is_answered = offset, False
            try:
                offset = _offset_of((yield from self._send(_patch(upload.id, offset, piece))))
                is_answered = True
            except MENDABLE as error:
                wait_s = calls.wait_before_retry(error, backoff_s)
                if failures == self._runner.max_retries or wait_s is None or _is_final(error):
                    raise
                yield Sleep(wait_s)
                backoff_s = min(2 * backoff_s, calls.MAX_BACKOFF_S)
                failures += 1
                offset = (yield from self._state(upload.id)).offset
            if offset > before:
                failures, backoff_s = 0, calls.BACKOFF_S
            if on_progress is not None:
                on_progress(offset, upload.length)
            # Only the answer to the last piece, or to an empty one, says that all was put together.
            if is_answered and offset == upload.length:
                return specs.Upload(upload.id, offset, upload.length, upload.expires_at)

    def _state(self, upload_id: str) -> Story[specs.Upload]:
        call = Call(method="HEAD", path=path("/v1/uploads/{}", upload_id), is_repeatable=True)
        reply = yield from self._send(call)
        length, expires_at = reply.headers["upload-length"], reply.headers["upload-expires"]
        return specs.Upload(upload_id, _offset_of(reply), int(length), datetime.fromisoformat(expires_at))


def _patch(upload_id: str, offset: int, piece: bytes) -> Call:
    headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    return Call(
        method="PATCH", path=path("/v1/uploads/{}", upload_id), headers=headers, content=piece
    )  # not repeatable: whether it arrived is asked first


def _offset_of(reply: Reply) -> int:
    return int(reply.headers["upload-offset"])


def _is_final(error: Exception) -> bool:
    return isinstance(error, Conflict) and error.code != "upload_offset"


def _length(file: Upload) -> int:
    if not file.size_bytes:
        what = "nothing" if file.size_bytes == 0 else "a stream that can be read only once"
        raise InvalidArgument(f"expected a file with bytes in it, got {what}; give a path")
    return file.size_bytes
