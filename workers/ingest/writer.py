"""Writes `data.arrow`, batch by batch, so that memory does not grow with the dataset."""

import hashlib
import io
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

#: Rows are gathered until they hold about so many bytes, then written as one record batch.
BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_ROWS = 65_536

_BUFFER_BYTES = 1024 * 1024


class _HashingFile(io.RawIOBase):
    """Hashes what passes through, so that the file need not be read again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # any buffer, as BufferedWriter hands it
        written = self._file.write(view)
        self.sha256.update(view[:written])
        self.size += written
        return written

    def close(self) -> None:
        self._file.close()
        super().close()


class ArrowWriter:
    """An Arrow IPC file without compression. As a context manager it removes the file on an error."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._file = _HashingFile(path)
        self._buffered = io.BufferedWriter(self._file, _BUFFER_BYTES)
        self._sink = pa.PythonFile(self._buffered, mode="w")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self.schema = schema

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._writer.close()
            self._buffered.flush()
        self._file.close()
        if error is not None:
            self._path.unlink(missing_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    @property
    def sha256(self) -> str:
        """Of the whole file, once the context is left."""
        return self._file.sha256.hexdigest()

    @property
    def size_bytes(self) -> int:
        return self._file.size
