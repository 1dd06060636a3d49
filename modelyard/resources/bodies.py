"""Bodies of predictions other than JSON: what a user names, as bytes with their media type."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from modelyard.errors import InvalidArgument
from modelyard.transport.story import InThread, Story

#: A file by its path, or what would be in it.
Source: TypeAlias = str | os.PathLike[str] | bytes

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"


def read_source(source: Source) -> Story[bytes]:
    """Raises OSError."""
    data: bytes = source if isinstance(source, bytes) else (yield InThread(Path(source).read_bytes))
    return data


def media_type(data: bytes) -> str:
    """By the first bytes, as a file's name may lie."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise InvalidArgument(f"expected the bytes of a PNG, JPEG or WebP, got {data[:12]!r}…")


def form_of(files: Iterable[bytes]) -> tuple[str, bytes]:
    """multipart/form-data with a part for each file, and its media type. What the bytes are, the service
    sees for itself."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="%d"\r\n\r\n'
    parts = [(head % number).encode() + data + b"\r\n" for number, data in enumerate(files)]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return f"multipart/form-data; boundary={boundary}", body
