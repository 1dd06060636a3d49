"""One file of a table, CSV, Parquet or JSON lines, read in batches of bounded size."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from core.errors import Invalid
from workers.ingest import csv_text
from workers.ingest.archives import Tree
from workers.ingest.cells import BLOCK_BYTES, plain, trimmed
from workers.ingest.jsonl_file import JsonlFile, looks_like_jsonl
from workers.ingest.problems import Problems, row_pointer

MAX_COLUMNS = 10_000
MAX_COLUMN_NAME_CHARACTERS = 1000

_PARQUET_ROWS = 16_384
_PARQUET_MAGIC = b"PAR1"
_HEAD_BYTES = 64 * 1024


class TableFile(Protocol):
    """`dtypes` holds what a column is stored as; None where the file says only text, as a CSV does, or
    nothing at all; such a column comes as strings."""

    name: str
    columns: list[str]
    dtypes: dict[str, str | None]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Columns in the file's order, strings trimmed, empty strings missing."""
        ...


def open_table_file(tree: Tree, name: str) -> TableFile:
    with tree.open(name) as file:
        head = file.read(_HEAD_BYTES)
    table_file: TableFile
    if head.startswith(_PARQUET_MAGIC):
        table_file = ParquetFile(tree, name)
    elif looks_like_jsonl(head):
        table_file = JsonlFile(tree, name)
    else:
        table_file = CsvFile(tree, name)
    check_columns(table_file.columns, name)
    return table_file


class CsvFile:
    def __init__(self, tree: Tree, name: str) -> None:
        self.name = name
        self._tree = tree
        with tree.open(name) as file:
            first_line = file.readline(BLOCK_BYTES)
        text = csv_text.decode(first_line, name).rstrip("\r\n")
        self._delimiter = csv_text.sniff_delimiter(text)
        self.columns = _header(text, self._delimiter, name)
        self.dtypes: dict[str, str | None] = dict.fromkeys(self.columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        problems = Problems()

        def refuse(row: pa_csv.InvalidRow) -> str:
            # Arrow counts rows from 1 with the header; without threads the number is exact. What is raised
            # here would be lost in Arrow, which is told to stop instead.
            message = f"expected {row.expected_columns} cells, got {row.actual_columns}"
            problems.note(row_pointer(self.name, row.number - 1), "bad_csv", message)
            return "error" if problems.is_full else "skip"

        with self._tree.open(self.name) as raw:
            file = _QuoteCounter(raw)
            try:
                reader = pa_csv.open_csv(
                    file,
                    pa_csv.ReadOptions(
                        use_threads=False, block_size=BLOCK_BYTES, column_names=self.columns, skip_rows=1
                    ),
                    pa_csv.ParseOptions(
                        delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=refuse
                    ),
                    pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(self.columns, pa.string()),
                        null_values=[""],
                        strings_can_be_null=True,
                    ),
                )
                for batch in reader:
                    yield trimmed(batch, self.name)
            except pa.ArrowInvalid as error:
                problems.raise_any()
                raise _bad_csv(self.name, error) from error
        problems.raise_any()
        if file.num_quotes % 2:
            raise Invalid(
                f"{self.name}: expected quotes in pairs, got {file.num_quotes}: one is left open, or stands "
                "alone in a cell; close it or double it",
                code="bad_csv",
            )


class _QuoteCounter(io.RawIOBase):
    """Arrow takes the end of the file for the end of an open quote, and every row after the quote is lost
    in one cell; the number of quotes tells."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.num_quotes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any writable buffer
        data = self._raw.read(len(view))
        self.num_quotes += data.count(b'"')
        view[: len(data)] = data
        return len(data)


class ParquetFile:
    def __init__(self, tree: Tree, name: str) -> None:
        self.name = name
        try:
            self._file = pq.ParquetFile(tree.local_path(name), memory_map=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _bad_parquet(name, error) from error
        self.columns = list(schema.names)
        self.dtypes: dict[str, str | None] = {field.name: dtype_of(field, name) for field in schema}

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._file.iter_batches(_PARQUET_ROWS, use_threads=False):
                columns = [
                    cells_of(column, self.dtypes[field.name])
                    for field, column in zip(batch.schema, batch.columns, strict=True)
                ]
                yield trimmed(pa.record_batch(columns, names=self.columns), self.name)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _bad_parquet(self.name, error) from error


def _header(line: str, delimiter: str, name: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise Invalid(f"{name}: the header does not parse ({error}); correct it", code="bad_csv") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not any(header):
        raise Invalid(f"{name}: expected a header with column names, the first line is empty", code="bad_csv")
    if all(_is_number(cell) for cell in header):
        raise Invalid(
            f"{name}: expected a header with column names, the first line is all numbers; add a header",
            code="no_header",
        )
    return header


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def check_columns(columns: Sequence[str], name: str) -> None:
    """Raises `Invalid` where a name is missing, too long or there twice, or where there are too many."""
    if len(columns) > MAX_COLUMNS:
        raise Invalid(f"{name}: expected at most {MAX_COLUMNS} columns, got {len(columns)}", code="too_large")
    for position, column in enumerate(columns, start=1):
        if not column:
            raise Invalid(
                f"{name}: column {position} has no name; name it, or leave it out (pandas: index=False)",
                code="unnamed_column",
            )
        if len(column) > MAX_COLUMN_NAME_CHARACTERS:
            raise Invalid(
                f"{name}: the name of column {position} is over {MAX_COLUMN_NAME_CHARACTERS} characters",
                code="too_large",
            )
    twins = sorted({column for column in columns if columns.count(column) > 1}) if _has_twins(columns) else []
    if twins:
        raise Invalid(
            f"{name}: expected distinct column names, got twice: {twins[:20]}; rename them",
            code="duplicate_column",
        )


def _has_twins(columns: Sequence[str]) -> bool:
    return len(set(columns)) < len(columns)


def cells_of(column: pa.Array, dtype: str | None) -> pa.Array:
    """A column of Parquet as a table's is stored, but for the width of its numbers."""
    return pc.cast(plain(column), pa.string()) if dtype == "string" else column


def dtype_of(field: pa.Field, name: str) -> str:
    """Dates, times and decimals: dates and times become ISO strings, decimals floats."""
    dtype = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    types = pa.types
    if types.is_boolean(dtype):
        return "bool"
    if types.is_integer(dtype):
        return "int64"
    if types.is_floating(dtype) or types.is_decimal(dtype):
        return "float64"
    if (
        types.is_string(dtype)
        or types.is_large_string(dtype)
        or types.is_temporal(dtype)
        or types.is_null(dtype)
    ):
        return "string"
    raise Invalid(
        f"{name}: expected numbers, bools or strings in column {field.name!r}, got {field.type}; "
        "convert it or leave it out",
        code="unsupported_column",
    )


def _bad_csv(name: str, error: Exception) -> Invalid:
    if "UTF8" in str(error):
        return csv_text.not_utf8(name, "a cell")
    if "straddling" in str(error):
        return Invalid(
            f"{name}: expected at most {BLOCK_BYTES} bytes a row; is a quote left open?", code="bad_csv"
        )
    return Invalid(f"{name}: {error}; correct the file", code="bad_csv")


def _bad_parquet(name: str, error: Exception) -> Invalid:
    return Invalid(f"{name}: not a readable Parquet file ({error}); write it again", code="bad_parquet")
