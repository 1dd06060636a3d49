"""Checkpoints: the weights of a job at a step, to download."""

import hashlib
import os
import uuid
from pathlib import Path
from typing import IO

from modelyard.errors import UnexpectedReply
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation
from modelyard.transport.story import InThread, Receive, Reply, Story


class Checkpoints(Resource[R]):
    """`client.checkpoints`."""

    @operation
    def download(self, checkpoint_id: str, path: str | os.PathLike[str]) -> Story[Path]:
        """Write the weights to the file `path`: a `state_dict` for `torch.load(…, weights_only=True)`.

        The file appears whole or not at all, and only when its SHA-256 is the one the service names.
        Raises Gone where the bytes were collected, UnexpectedReply where they came damaged; OSError.
        """
        target = Path(path)
        part: Part = yield InThread(lambda: Part(target))
        try:
            reply: Reply = yield from self._receive(checkpoint_id, part)
            yield InThread(lambda: part.finish(_sha256_of(reply)))
        finally:
            part.discard()
        return target

    def _receive(self, checkpoint_id: str, part: "Part") -> Story[Reply]:
        call = calls.get(path("/v1/checkpoints/{}/weights", checkpoint_id))
        return (yield from self._send(Receive(call, part.begin, part.write)))


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
                f"expected weights with SHA-256 {sha256}, got {self._hash.hexdigest()}; download them again"
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
        raise UnexpectedReply(f"expected an ETag with the weights' SHA-256, got {etag!r}")
    return etag.lower()
