"""What every CSV has in common, before anybody looks for types: strict UTF-8, a delimiter, whole rows."""

import csv
import io

from core.errors import Invalid

DELIMITERS = ",;\t"


def decode(data: bytes, name: str) -> str:
    """Strict UTF-8, a byte order mark allowed; the error names the line."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise not_utf8(name, f"line {line}") from error


def not_utf8(name: str, where: str) -> Invalid:
    return Invalid(
        f"{name}: expected UTF-8, {where} is something else; save the file as UTF-8", code="bad_encoding"
    )


def sniff_delimiter(line: str) -> str:
    """The one of comma, semicolon and tab that the line has most outside quotes; else a comma."""
    outside = "".join(line.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def parse(text: str, name: str) -> list[list[str]]:
    """All rows, blank lines left out, cells trimmed. Raises `Invalid` where quotes do not close."""
    delimiter = sniff_delimiter(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [[cell.strip() for cell in row] for row in reader if row]
    except csv.Error as error:
        raise Invalid(
            f"{name}: line {reader.line_num} does not parse ({error}); correct it", code="bad_csv"
        ) from error
