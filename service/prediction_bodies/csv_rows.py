"""`text/csv`: the header names the columns, each line after it is a row, read as the CSV of a dataset is."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO, TextIOWrapper
from itertools import chain
from typing import Any

from core.data.instances import BadInstance
from core.data.prepare import FittedColumn
from core.errors import Invalid, TooLarge
from modelyard.specs import MAX_INSTANCES
from service.prediction_bodies.columns import Takes, require_columns, require_table

MEDIA_TYPE = "text/csv"
DELIMITERS = ",;\t"

#: What a reader takes at once; a cell has at most `csv.field_size_limit()` characters.
MAX_LINE_CHARACTERS = 1024 * 1024

#: Rows may have several, and some are blank.
MAX_LINES = 20 * MAX_INSTANCES

Row = dict[str, Any] | BadInstance


def rows_of_csv(data: bytes, takes: Takes) -> list[Row]:
    """Row objects as JSON has them: cells trimmed, an empty cell missing, blank lines left out. What a cell
    means is said by the model's column. Raises Invalid where it is no CSV in UTF-8 with the model's columns,
    TooLarge past `MAX_INSTANCES` rows."""
    require_table(takes, MEDIA_TYPE)
    lines = _cells(data)
    header = next(lines, None)
    if header is None:
        raise Invalid("Expected a header with the names of the columns, got no line.", code="bad_csv")
    require_columns(header, takes)
    fitted = {column.name: column for column in takes.columns}
    rows: list[Row] = []
    for cells in lines:
        if len(rows) == MAX_INSTANCES:
            raise TooLarge(f"One request holds at most {MAX_INSTANCES} rows. Send the others in another.")
        rows.append(_row(cells, header, fitted))
    if not rows:
        raise Invalid("Expected rows under the header, got none.", code="bad_csv")
    return rows


def _cells(data: bytes) -> Iterator[list[str]]:
    """Line by line: of a body only one row is ever held as cells."""
    num_lines = 0
    try:
        lines = _lines(data)
        header = next(lines, "")
        reader = csv.reader(chain([header], lines), delimiter=_delimiter_of(header), strict=True)
        for cells in reader:
            num_lines = reader.line_num
            if cells:
                yield [cell.strip() for cell in cells]
    except csv.Error as error:
        raise Invalid(
            f"After line {num_lines} comes no row of a CSV ({error}). Close or double its quotes.",
            code="bad_csv",
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            f"Expected UTF-8, got other bytes after line {num_lines}. Save the file as UTF-8.",
            code="bad_encoding",
        ) from error


def _lines(data: bytes) -> Iterator[str]:
    with TextIOWrapper(BytesIO(data), "utf-8-sig", newline="") as text:
        num_lines = 0
        while line := text.readline(MAX_LINE_CHARACTERS + 1):
            num_lines += 1
            if num_lines > MAX_LINES:
                raise TooLarge(f"One request holds at most {MAX_LINES} lines. Send the others in another.")
            if len(line) > MAX_LINE_CHARACTERS:
                raise TooLarge(
                    f"A line has at most {MAX_LINE_CHARACTERS} characters. Send longer texts as JSON."
                )
            yield line


def _delimiter_of(header: str) -> str:
    """The one of comma, semicolon and tab that the header has most outside quotes; else a comma."""
    outside = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def _row(cells: Sequence[str], header: Sequence[str], fitted: Mapping[str, FittedColumn]) -> Row:
    if len(cells) != len(header):
        return BadInstance(f"expected {len(header)} cells, got {len(cells)}")
    return {name: _value(cell, fitted[name]) for name, cell in zip(header, cells, strict=True)}


def _value(cell: str, column: FittedColumn) -> Any:
    """What is neither a number nor true or false stays text: the check of the row refuses it."""
    if not cell:
        return None
    match column.kind:
        case "number":
            return _number(cell)
        case "bool":
            return {"true": True, "false": False}.get(cell.lower(), cell)
        case "string":
            return cell


def _number(cell: str) -> float | str | None:
    """As Arrow, which reads datasets, reads one; NaN is missing."""
    if not cell.isascii() or "_" in cell:
        return cell
    try:
        number = float(cell)
    except ValueError:
        return cell
    return None if math.isnan(number) else number
