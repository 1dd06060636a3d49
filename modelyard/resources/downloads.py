"""Files that the service gives: they appear whole or not at all."""

import hashlib
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import IO

from modelyard.errors import InvalidArgument, UnexpectedReply
from modelyard.specs import WeightsFormat
from modelyard.transport import calls
from modelyard.transport.resource import R, Resource
from modelyard.transport.story import Call, InThread, Receive, Reply, Story


class Downloading(Resource[R]):
    """A resource with files to download."""

    def _download_weights(self, url: str, file: str | os.PathLike[str], format: str) -> Story[Path]:
        """Raises InvalidArgument for a format that there is none of."""
        if format not in set(WeightsFormat):
            known = ", ".join(WeightsFormat)
            raise InvalidArgument(f"expected one of the formats {known}, got {format!r}")
        # The service may have to make the file first, and holds its answer meanwhile.
        asked = None if format == WeightsFormat.PT else str(format)
        call = replace(calls.get(url, format=asked), held_s=calls.LONG_POLL_S)
        return (yield from self._download(call, file))

    def _download(self, call: Call, file: str | os.PathLike[str]) -> Story[Path]:
        """The file appears only when its SHA-256 is the one the service names. Raises UnexpectedReply where
        the bytes came damaged; OSError."""
        target = Path(file)
        part: Part = yield InThread(lambda: Part(target))
        try:
            reply: Reply = yield from self._send(Receive(call, part.begin, part.write))
            yield InThread(lambda: part.finish(_sha256_of(reply)))
        finally:
            part.discard()
        return target


class Part:
    """A file in the making beside its target. A download that is repeated begins at the start again."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._name = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        self._file: IO[bytes] = self._name.open("xb")
        self._hash = hashlib.sha256()

    def begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)

    def finish(self, sha256: str) -> None:
        """Raises UnexpectedReply where the bytes have another SHA-256."""
        if self._hash.hexdigest() != sha256:
            raise UnexpectedReply(
                f"expected bytes with SHA-256 {sha256}, got {self._hash.hexdigest()}; download them again"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._name.replace(self._target)

    def discard(self) -> None:
        self._file.close()
        self._name.unlink(missing_ok=True)


def _sha256_of(reply: Reply) -> str:
    etag = reply.headers.get("etag", "").removeprefix("W/").strip('"')
    if len(etag) != 64:
        raise UnexpectedReply(f"expected an ETag with the file's SHA-256, got {etag!r}")
    return etag.lower()
