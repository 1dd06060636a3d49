"""The rows that are asked about, a few at a time: of a dataset, or of an uploaded file."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeAlias, assert_never

import msgspec

from core.data.arrow import array_column, open_table
from core.data.instances import BadInstance
from core.data.manifest import Kind, Manifest
from core.nets.artifacts import VersionManifest
from workers.predictions.messages import FromDataset, FromUpload
from workers.predictions.uploads import open_upload

#: A row as the predictor takes it, or why it can't be read.
Instance: TypeAlias = Any | BadInstance


class Rows(Protocol):
    """`count` rows, numbered from 0. Memory holds those of one chunk."""

    count: int

    def chunks(self, start: int, size: int) -> Iterator[list[Instance]]:
        """From the row `start` on, `size` at a time; the last may be shorter."""
        ...

    def split_of(self, row: int) -> str | None:
        """None where there are no splits."""
        ...


def open_rows(source: FromDataset | FromUpload, version: VersionManifest) -> Rows:
    """Raises Invalid where no row can be read."""
    match source:
        case FromDataset():
            manifest = msgspec.json.decode(Path(source.manifest).read_bytes(), type=Manifest)
            return DatasetRows(Path(source.arrow), manifest, source.split, version)
        case FromUpload():
            return open_upload(Path(source.path), version.prepare)
        case _:
            assert_never(source)


class DatasetRows:
    """Of one split, or of all in the order of the file."""

    def __init__(self, arrow: Path, manifest: Manifest, split: str | None, version: VersionManifest) -> None:
        self._table = open_table(arrow)
        self._manifest = manifest
        self._names = [column.name for column in version.prepare]
        chosen = manifest.rows_of(split) if split is not None else range(manifest.num_samples)
        self._first, self.count = chosen.start, len(chosen)
        self._splits = list(manifest.splits)
        self._ends = list(accumulate(manifest.splits.values()))

    def chunks(self, start: int, size: int) -> Iterator[list[Instance]]:
        for row in range(start, self.count, size):
            yield self._read(self._first + row, min(size, self.count - row))

    def split_of(self, row: int) -> str:
        return self._splits[bisect_right(self._ends, self._first + row)]

    def _read(self, first: int, count: int) -> list[Instance]:
        table = self._table.slice(first, count)
        match self._manifest.kind:
            case Kind.IMAGES:
                return list(table.column("image").to_pylist())
            case Kind.TABLE:
                return list(table.select(self._names).to_pylist())
            case Kind.ARRAYS:
                return list(array_column(table, "x", self._manifest))
