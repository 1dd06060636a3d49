"""Files by key: a durable local folder, or an object store.

A key is a relative path of `/`-joined words. What a key holds never changes once written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from core.storage.local import LocalStorage
from core.storage.remote import RemoteStorage


class Storage(Protocol):
    def adopt(self, key: str, path: Path) -> None:
        """Takes a finished local file as the content of `key`, durably; `path` is gone afterwards."""

    def fetch(self, key: str) -> Path:
        """A local file with the content; for reading only. FileNotFoundError where there is none."""

    def delete(self, key: str) -> None:
        """Deleting what is not there is no error."""

    def list(self, prefix: str) -> Iterator[str]:
        """All keys below a folder."""


def open_storage(url: str, cache: Path) -> Storage:
    """`file:///folder`, or `s3://bucket/prefix` (credentials from the usual AWS_* variables; what is
    fetched is kept under `cache`)."""
    parts = urlsplit(url)
    match parts.scheme:
        case "file":
            return LocalStorage(Path(unquote(parts.path)))
        case "s3":
            return RemoteStorage(url, cache)
        case other:
            raise ValueError(f"MODELYARD_STORAGE_URL: expected file:// or s3://, got {other}://")
