"""What may be uploaded: bytes, an open file, a file's path, or a folder, which is zipped first."""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from modelyard.errors import InvalidArgument
from modelyard.transport.http import CHUNK_BYTES

Source: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]

#: Called with the bytes sent so far and how many there are, None where that isn't known.
OnProgress: TypeAlias = Callable[[int, int | None], None]

#: Compressed already; deflating them again costs time and gains nothing.
STORED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".gz", ".zst", ".npz", ".parquet"})

#: A fixed time in every entry, so that zipping the same folder twice gives the same bytes.
ENTRY_TIME = (1980, 1, 1, 0, 0, 0)


class Upload:
    """A source as a request's body; `label` is a file's name, where it has one. Close it to give back
    what it opened."""

    def __init__(
        self, file: IO[bytes], *, label: str | None, owns_file: bool, on_progress: OnProgress | None
    ) -> None:
        self.label = label
        self._file = file
        self._owns_file = owns_file
        self._on_progress = on_progress
        self.is_repeatable = file.seekable()
        self._start = file.tell() if self.is_repeatable else 0
        self.size_bytes = self._remaining() if self.is_repeatable else None

    def chunks(self) -> Iterator[bytes]:
        if self.is_repeatable:
            self._file.seek(self._start)
        sent_bytes = 0
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk
            sent_bytes += len(chunk)
            if self._on_progress is not None:
                self._on_progress(sent_bytes, self.size_bytes)

    def piece(self, offset: int, size_bytes: int) -> bytes:
        """At most so many bytes from `offset` on; only where the upload is repeatable."""
        self._file.seek(self._start + offset)
        return self._file.read(size_bytes)

    def close(self) -> None:
        if self._owns_file:
            self._file.close()

    def _remaining(self) -> int:
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(self._start)
        return end - self._start


def open_upload(source: Source, on_progress: OnProgress | None) -> Upload:
    """Raises OSError where the file cannot be read, InvalidArgument for a folder without files."""
    if isinstance(source, bytes):
        return Upload(io.BytesIO(source), label=None, owns_file=True, on_progress=on_progress)
    if not isinstance(source, str | os.PathLike):
        label = getattr(source, "name", None)
        label = Path(label).name if isinstance(label, str) else None
        return Upload(source, label=label, owns_file=False, on_progress=on_progress)
    path = Path(source)
    if path.is_dir():
        label = f"{path.resolve().name}.zip"
        return Upload(zip_folder(path), label=label, owns_file=True, on_progress=on_progress)
    return Upload(path.open("rb"), label=path.name, owns_file=True, on_progress=on_progress)


def zip_folder(folder: Path) -> IO[bytes]:
    """A temporary zip of what lies under `folder`, hidden files left out; it is gone once closed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    if not files:
        raise InvalidArgument(f"expected a folder with files in it, got {folder} without any")
    target = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the caller, who closes it
    with zipfile.ZipFile(target, "w") as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), ENTRY_TIME)
            is_stored = path.suffix.lower() in STORED_SUFFIXES
            entry.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            entry.file_size = path.stat().st_size  # decides whether the entry needs 64-bit sizes
            with path.open("rb") as member, archive.open(entry, "w") as out:
                while chunk := member.read(CHUNK_BYTES):
                    out.write(chunk)
    target.seek(0)
    return target


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
