"""Resumable uploads: bytes sent in pieces, which go on where a connection broke off."""

from modelyard import specs
from modelyard.resources import pieces
from modelyard.resources.pieces import OnBegin
from modelyard.resources.uploads import OnProgress, Source, Upload, open_upload
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation
from modelyard.transport.story import InThread, Story


class Uploads(Resource[R]):
    """`client.uploads`."""

    @operation
    def create(
        self, source: Source, on_progress: OnProgress | None = None, on_begin: OnBegin | None = None
    ) -> Story[specs.Upload]:
        """Upload a file in pieces; its `id` may then be named by a job's weights or by a new dataset.

        A broken connection is taken up again where it broke; `on_begin` is told the upload before its first
        byte, so that `resume` can go on with it. Raises OSError; InvalidArgument for a source that is empty
        or cannot be read twice.
        """
        file: Upload = yield InThread(lambda: open_upload(source, None))
        try:
            return (yield from pieces.begin(file, on_progress, on_begin, self._runner.max_retries))
        finally:
            file.close()

    @operation
    def resume(
        self, upload_id: str, source: Source, on_progress: OnProgress | None = None
    ) -> Story[specs.Upload]:
        """Send what is still missing of an upload that was begun from the same bytes."""
        file: Upload = yield InThread(lambda: open_upload(source, None))
        try:
            return (yield from pieces.go_on(upload_id, file, on_progress, self._runner.max_retries))
        finally:
            file.close()

    @operation
    def get(self, upload_id: str) -> Story[specs.Upload]:
        """How much of it has come."""
        return (yield from pieces.look(upload_id, self._runner.max_retries))

    @operation
    def delete(self, upload_id: str) -> Story[None]:
        """Raises Conflict while a job that has not ended reads it."""
        yield from self._send(calls.delete(path("/v1/uploads/{}", upload_id)))
