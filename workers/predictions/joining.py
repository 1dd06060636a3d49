"""Parts -> two files: the answers, and the rows that have none. Where the parts were cut leaves no trace."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from core.storage.durable import Damaged, describe, verify
from workers.predictions.link import Link
from workers.predictions.messages import Joined, PartDamaged, Piece, Progressed
from workers.predictions.parts import PROGRESS_EVERY_S, WHERE, WHY

#: Of a row group of Parquet, which is held in memory.
GROUP_ROWS, GROUP_VALUES = 64 * 1024, 1024 * 1024


@dataclass(frozen=True)
class Layout:
    """Of the files: `columns` are those of an answer, which has at most `width` numbers."""

    format: str
    columns: Mapping[str, pa.DataType]
    width: int
    has_splits: bool

    @property
    def group_rows(self) -> int:
        return max(1, min(GROUP_ROWS, GROUP_VALUES // self.width))


class Writer(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


def join(pieces: Sequence[Piece], count: int, layout: Layout, folder: Path, link: Link) -> None:
    """Says Joined, or PartDamaged. Raises RuntimeError where the parts are not the `count` rows."""
    outputs = Collected(folder / f"output.{layout.format}", layout, layout.columns)
    errors = Collected(folder / f"errors.{layout.format}", layout, WHY)
    expected, told_at = 0, 0.0
    spoiled = sum(piece.errors for piece in pieces)  # all of them were told of already
    for piece in pieces:
        if piece.start != expected:
            raise RuntimeError(f"expected the part from row {expected} on, got that from {piece.start} on")
        try:
            verify(Path(piece.file.path), piece.file.size, piece.file.sha256)
        except (Damaged, FileNotFoundError) as error:
            link.send(PartDamaged(piece.start, str(error)))
            return
        for batch in _batches(Path(piece.file.path)):
            is_answered = pc.is_null(batch.column("code"))
            outputs.add(batch.filter(is_answered))
            errors.add(batch.filter(pc.invert(is_answered)))
            expected += len(batch)
        if time.monotonic() - told_at >= PROGRESS_EVERY_S:
            told_at = time.monotonic()
            link.send(Progressed(count, spoiled))
    if expected != count or outputs.rows + errors.rows != count:
        raise RuntimeError(f"expected {count} rows in the parts, got {outputs.rows} + {errors.rows}")
    outputs.close()
    errors.close()
    link.send(Joined(describe(outputs.path), outputs.rows, describe(errors.path), errors.rows))


class Collected:
    """One of the two files, and how many rows are in it. `split` stays out where the rows have none."""

    def __init__(self, path: Path, layout: Layout, columns: Mapping[str, pa.DataType]) -> None:
        where = {name: dtype for name, dtype in WHERE.items() if name != "split" or layout.has_splits}
        schema = pa.schema([*where.items(), *columns.items()])
        self.path, self.rows = path, 0
        self._names = schema.names
        self._writer = _writer(path, layout, schema)

    def add(self, batch: pa.RecordBatch) -> None:
        if len(batch):
            self._writer.write(batch.select(self._names))
            self.rows += len(batch)

    def close(self) -> None:
        self._writer.close()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _writer(path: Path, layout: Layout, schema: pa.Schema) -> Writer:
    match layout.format:
        case "parquet":
            return ParquetWriter(path, schema, layout.group_rows)
        case "csv":
            return CsvWriter(path, schema)
        case _:
            return JsonlWriter(path)


class ParquetWriter:
    """In groups of so many rows, however many come at once."""

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int) -> None:
        self._file = pq.ParquetWriter(path, schema)
        self._schema, self._group_rows = schema, group_rows
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0

    def write(self, batch: pa.RecordBatch) -> None:
        while len(batch):
            taken = batch.slice(0, self._group_rows - self._count)
            self._waiting.append(taken)
            self._count += len(taken)
            batch = batch.slice(len(taken))
            if self._count == self._group_rows:
                self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._count = [], 0


class CsvWriter:
    """A list is written as JSON in its cell."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        plain = [(field.name, pa.string() if _is_list(field.type) else field.type) for field in schema]
        self._schema = pa.schema(plain)
        self._file = pa_csv.CSVWriter(str(path), self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [_as_text(column) if _is_list(column.type) else column for column in batch.columns]
        self._file.write(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._file.close()


class JsonlWriter:
    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._encode = msgspec.json.Encoder().encode

    def write(self, batch: pa.RecordBatch) -> None:
        self._file.writelines(self._encode(row) + b"\n" for row in batch.to_pylist())

    def close(self) -> None:
        self._file.close()


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype))


def _as_text(column: pa.Array) -> pa.Array:
    return pa.array([msgspec.json.encode(value).decode() for value in column.to_pylist()], pa.string())
