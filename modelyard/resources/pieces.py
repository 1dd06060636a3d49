"""The stories of a file that goes in pieces, and goes on where a connection broke off."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from modelyard import specs
from modelyard.errors import Conflict, ConnectError, ConnectionLost, InvalidArgument, Timeout, Unavailable
from modelyard.resources.uploads import OnProgress, Upload
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.story import Call, InThread, Reply, Sleep, Story

#: What a request holds, and what is sent again at worst.
PIECE_BYTES = 8 * 1024 * 1024

#: Putting all pieces together may take as long as the slowest of disks, beyond the client's timeout.
JOINED_BYTES_A_S = 20 * 1024 * 1024

#: What a piece may meet that is mended by asking where the upload stands and going on from there.
MENDABLE = (ConnectError, ConnectionLost, Timeout, Unavailable, Conflict)

#: Called once with the upload that was begun: its id is what `resume` takes.
OnBegin: TypeAlias = Callable[[specs.Upload], None]


def begin(
    file: Upload, on_progress: OnProgress | None, on_begin: OnBegin | None, max_retries: int
) -> Story[specs.Upload]:
    """All of an opened file. Raises InvalidArgument for one that is empty or cannot be read twice."""
    asked = specs.UploadRequest(file.label or "upload", _length(file))
    call = calls.send_json("POST", "/v1/uploads", asked, is_repeatable=False)
    upload = yield from calls.fetch(call, specs.Upload, max_retries=max_retries)
    if on_begin is not None:
        on_begin(upload)
    return (yield from _fill(upload, file, on_progress, max_retries))


def go_on(
    upload_id: str, file: Upload, on_progress: OnProgress | None, max_retries: int
) -> Story[specs.Upload]:
    """What is still missing. Raises InvalidArgument for a file of another length."""
    upload = yield from look(upload_id, max_retries)
    if upload.length != (length := _length(file)):
        raise InvalidArgument(
            f"expected the {upload.length} bytes that {upload_id} was begun with, got {length}"
        )
    return (yield from _fill(upload, file, on_progress, max_retries))


def look(upload_id: str, max_retries: int) -> Story[specs.Upload]:
    """How much has come."""
    call = Call(method="HEAD", path=path("/v1/uploads/{}", upload_id), is_repeatable=True)
    reply = yield from calls.send(call, max_retries=max_retries)
    length, expires_at = reply.headers["upload-length"], reply.headers["upload-expires"]
    return specs.Upload(upload_id, _offset_of(reply), int(length), datetime.fromisoformat(expires_at))


def _fill(
    upload: specs.Upload, file: Upload, on_progress: OnProgress | None, max_retries: int
) -> Story[specs.Upload]:
    offset, failures, backoff_s = upload.offset, 0, calls.BACKOFF_S
    while True:
        piece: bytes = yield InThread(lambda: file.piece(offset, PIECE_BYTES))  # noqa: B023 - run at once
        before, is_answered = offset, False
        try:
            sent = yield from calls.send(_patch(upload, offset, piece), max_retries=max_retries)
            offset, is_answered = _offset_of(sent), True
        except MENDABLE as error:
            wait_s = calls.wait_before_retry(error, backoff_s)
            if failures == max_retries or wait_s is None or _is_final(error):
                raise
            yield Sleep(wait_s)
            backoff_s = min(2 * backoff_s, calls.MAX_BACKOFF_S)
            failures += 1
            offset = (yield from look(upload.id, max_retries)).offset
        if offset > before:
            failures, backoff_s = 0, calls.BACKOFF_S
        if on_progress is not None:
            on_progress(offset, upload.length)
        # Only the answer to the last piece, or to an empty one, says that all was put together.
        if is_answered and offset == upload.length:
            return specs.Upload(upload.id, offset, upload.length, upload.expires_at)


def _patch(upload: specs.Upload, offset: int, piece: bytes) -> Call:
    """Not repeatable: whether it arrived is asked first. The last one is answered once all is one file."""
    is_last = offset + len(piece) == upload.length
    return Call(
        method="PATCH",
        path=path("/v1/uploads/{}", upload.id),
        headers={"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)},
        content=piece,
        held_s=upload.length / JOINED_BYTES_A_S if is_last else 0,
    )


def _offset_of(reply: Reply) -> int:
    return int(reply.headers["upload-offset"])


def _is_final(error: Exception) -> bool:
    return isinstance(error, Conflict) and error.code != "upload_offset"


def _length(file: Upload) -> int:
    if not file.size_bytes:
        what = "nothing" if file.size_bytes == 0 else "a stream that can be read only once"
        raise InvalidArgument(f"expected a file with bytes in it, got {what}; give a path")
    return file.size_bytes
