"""Storage in an object store, through obstore. What is fetched is cached locally, whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.store import S3Store, from_url

from core.storage.keys import path_below

PIECE_BYTES = 8 * 1024 * 1024


class RemoteStorage:
    def __init__(self, url: str, cache: Path) -> None:
        # AWS_* come from the environment; plain http only where AWS_ALLOW_HTTP says so.
        store = from_url(url)
        if not isinstance(store, S3Store):
            raise ValueError(f"MODELYARD_STORAGE_URL: expected s3://, got {url}")
        self._store = store
        self._cache = cache.resolve()

    def adopt(self, key: str, path: Path) -> None:
        cached = path_below(self._cache, key)
        obstore.put(self._store, key, path)  # multipart for large files; returns once it is stored
        cached.unlink(missing_ok=True)
        path.unlink()

    def fetch(self, key: str) -> Path:
        target = path_below(self._cache, key)
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in obstore.get(self._store, key).stream(min_chunk_size=PIECE_BYTES):
                    file.write(memoryview(piece))
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return target

    def delete(self, key: str) -> None:
        path_below(self._cache, key).unlink(missing_ok=True)
        obstore.delete(self._store, key)

    def list(self, prefix: str) -> Iterator[str]:
        for batch in obstore.list(self._store, prefix):
            for meta in batch:
                yield meta["path"]
