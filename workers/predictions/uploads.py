"""An uploaded file of a table, row by row: one that can't be read spoils nobody else's.

Only the columns that the model takes are read. Text is trimmed, and what is empty then is missing, as in a
dataset.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from core.data.instances import BadInstance
from core.data.prepare import FittedColumn
from core.errors import Invalid
from core.faults import show
from workers.ingest.cells import BLOCK_BYTES
from workers.ingest.columns import convert
from workers.ingest.csv_text import sniff_delimiter
from workers.ingest.jsonl_file import looks_like_jsonl
from workers.ingest.table_files import cells_of, dtype_of

Row: TypeAlias = dict[str, Any] | BadInstance

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 256
_HEAD_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_BOOLS = {"true": True, "false": False}
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def open_upload(path: Path, columns: Sequence[FittedColumn]) -> "UploadRows":
    """Counts the rows first. Raises Invalid where the file, and not a row of it, can't be read."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_PARQUET_MAGIC):
        return ParquetRows(path, columns)
    return JsonlRows(path, columns) if looks_like_jsonl(head) else CsvRows(path, columns)


class UploadRows(ABC):
    """`count` rows; a kind of file says how it is gone through."""

    def __init__(self, path: Path, columns: Sequence[FittedColumn]) -> None:
        self._path, self._columns = path, columns
        self.count = self._counted()

    def chunks(self, start: int, size: int) -> Iterator[list[Row]]:
        gathered: list[Row] = []
        with closing(self._rows(start)) as rows:
            for row in rows:
                gathered.append(row)
                if len(gathered) == size:
                    yield gathered
                    gathered = []
        if gathered:
            yield gathered

    def split_of(self, row: int) -> None:
        return None

    @abstractmethod
    def _counted(self) -> int: ...

    @abstractmethod
    def _rows(self, start: int) -> Generator[Row, None, None]: ...

    def _require(self, names: Sequence[str]) -> None:
        lacking = [column.name for column in self._columns if column.name not in names]
        if lacking:
            raise Invalid(
                f"the model takes columns that the file lacks: {show(lacking)}; add them (it has "
                f"{show(list(names))})",
                code="missing_columns",
            )


class CsvRows(UploadRows):
    """Quotes that don't close leave open where a row ends: such a file is refused whole."""

    def _counted(self) -> int:
        with self._path.open("rb") as file:
            _, rows = self._open(file)
            return sum(1 for _ in rows)

    def _rows(self, start: int) -> Generator[Row, None, None]:
        with self._path.open("rb") as file:
            names, rows = self._open(file)
            read = [(column, names.index(column.name)) for column in self._columns]
            for number, cells in enumerate(rows):
                if number >= start:
                    yield _of_cells(cells, len(names), read)

    def _open(self, file: Any) -> tuple[list[str], Iterator[list[str]]]:
        csv.field_size_limit(BLOCK_BYTES)
        lines = _lines(file)
        first = next(lines, "")
        names = [name.strip() for name in next(csv.reader([first], delimiter=sniff_delimiter(first)), [])]
        self._require(names)
        return names, _parsed(lines, sniff_delimiter(first))


class JsonlRows(UploadRows):
    """One object a line; a blank line is no row."""

    def _counted(self) -> int:
        with self._path.open("rb") as file:
            return sum(1 for line in _raw_lines(file) if line.strip())

    def _rows(self, start: int) -> Generator[Row, None, None]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        with self._path.open("rb") as file:
            filled = (line for line in _raw_lines(file) if line.strip())
            for number, line in enumerate(filled):
                if number >= start:
                    yield self._of_line(line, decode)

    def _of_line(self, line: bytes, decode: Callable[[bytes], dict[str, Any]]) -> Row:
        try:
            found = decode(line)
        except _UNREADABLE as error:
            return BadInstance(f"expected one object a line ({error})", code="bad_jsonl")
        return {column.name: _trimmed(found.get(column.name)) for column in self._columns}


class ParquetRows(UploadRows):
    def _counted(self) -> int:
        with _told(), self._open() as file:
            schema = file.schema_arrow
            self._require(schema.names)
            self._dtypes = {
                column.name: dtype_of(schema.field(column.name), self._path.name) for column in self._columns
            }
            return int(file.metadata.num_rows)

    def _rows(self, start: int) -> Generator[Row, None, None]:
        names = [column.name for column in self._columns]
        passed = 0
        with _told(), self._open() as file:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=names, use_threads=False):
                if passed + len(batch) > start:
                    yield from self._of_batch(batch.slice(max(0, start - passed)))
                passed += len(batch)

    def _of_batch(self, batch: pa.RecordBatch) -> Iterator[Row]:
        columns = {
            name: convert(cells_of(batch.column(name), dtype), dtype).to_pylist()
            for name, dtype in self._dtypes.items()
        }
        for values in zip(*columns.values(), strict=True):
            yield {name: _trimmed(value) for name, value in zip(columns, values, strict=True)}

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._path, memory_map=False)


@contextmanager
def _told() -> Iterator[None]:
    """What Arrow finds wrong with a file, in our words."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Invalid(
            f"the file is no readable Parquet ({error}); write it again", code="bad_parquet"
        ) from error


def _raw_lines(file: Any) -> Iterator[bytes]:
    """Bounded, so that a file without an end of line takes no memory."""
    line = file.readline(BLOCK_BYTES + 1).removeprefix(_BOM)
    number = 1
    while line:
        if len(line) > BLOCK_BYTES:
            raise Invalid(
                f"expected at most {BLOCK_BYTES} bytes a line, line {number} has more; is a quote left open?",
                code="too_large",
            )
        yield line
        line, number = file.readline(BLOCK_BYTES + 1), number + 1


def _lines(file: Any) -> Iterator[str]:
    """Bytes that are no UTF-8 become lone surrogates, which a cell is looked through for."""
    return (line.decode("utf-8", "surrogateescape") for line in _raw_lines(file))


def _parsed(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """Each row's cells; blank lines are left out."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise Invalid(
                f"line {reader.line_num + 1} does not parse ({error}); correct it", code="bad_csv"
            ) from error
        if cells is None:
            return
        if cells:
            yield cells


def _of_cells(cells: list[str], width: int, read: Sequence[tuple[FittedColumn, int]]) -> Row:
    if len(cells) != width:
        return BadInstance(f"expected {width} cells, got {len(cells)}", code="bad_csv")
    try:
        return {column.name: _value(column, cells[place].strip()) for column, place in read}
    except BadInstance as error:
        return error


def _value(column: FittedColumn, cell: str) -> Any:
    """What the cell says in a column of this kind; None where it is missing."""
    if not cell:
        return None
    match column.kind:
        case "string":
            return _unicode(column, cell)
        case "bool":
            if cell.lower() not in _BOOLS:
                raise BadInstance(f"{column.name!r}: expected true or false, got {show(cell)}")
            return _BOOLS[cell.lower()]
        case _:
            return _number(column, cell)


def _number(column: FittedColumn, cell: str) -> float | None:
    """NaN is missing, as in a dataset."""
    try:
        value = float(cell) if "_" not in cell else None
    except ValueError:
        value = None
    if value is None:
        raise BadInstance(f"{column.name!r}: expected a number, got {show(cell)}")
    return None if value != value else value


def _unicode(column: FittedColumn, cell: str) -> str:
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise BadInstance(f"{column.name!r}: expected UTF-8, got other bytes", code="bad_encoding") from None
    return cell


def _trimmed(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    return None if value != value else value
