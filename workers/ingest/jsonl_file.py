"""JSON lines as one file of a table: one flat object a line, a key a column."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from core.errors import Invalid
from workers.ingest.archives import Tree
from workers.ingest.cells import BLOCK_BYTES, trimmed
from workers.ingest.columns import TYPES
from workers.ingest.problems import Problems, row_pointer

MAX_KEYS = 10_000

_Row: TypeAlias = dict[str, str | int | float | bool | None]
_DECODER = msgspec.json.Decoder(_Row)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_MAX_WHOLE = int(sys.float_info.max)


class JsonlFile:
    """Read twice: the keys and types are those of all rows. A key that a row lacks is missing there.

    Raises `Invalid` with up to `problems.MAX_ERRORS` rows that are no flat objects, or whose value is of
    another kind than the rows before have under that key.
    """

    def __init__(self, tree: Tree, name: str) -> None:
        self.name = name
        self._tree = tree
        self.dtypes: dict[str, str | None] = {}
        self._learn()
        self.columns = list(self.dtypes)

    def batches(self) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([(name, TYPES[dtype or "string"]) for name, dtype in self.dtypes.items()])
        rows: list[Mapping[str, Any]] = []
        gathered_bytes = 0
        for line, row in self._rows(Problems()):
            rows.append(row)
            gathered_bytes += len(line)
            if gathered_bytes >= BLOCK_BYTES:
                yield self._batch(rows, schema)
                rows, gathered_bytes = [], 0
        if rows:
            yield self._batch(rows, schema)

    def _learn(self) -> None:
        problems = Problems()
        for number, (_, row) in enumerate(self._rows(problems), start=1):
            for key, value in row.items():
                if isinstance(value, int) and abs(value) > _MAX_WHOLE:
                    message = f"expected a number that a float64 holds under {key!r}, got a larger one"
                    problems.add(row_pointer(self.name, number), "bad_jsonl", message)
                    continue
                known, came = self.dtypes.get(key), _dtype_of(value)
                together = _wider(known, came)
                if together is None and came is not None:
                    message = f"expected {known} under {key!r} as in the rows before, got {came}"
                    problems.add(row_pointer(self.name, number), "column_type", message)
                    continue
                self.dtypes[key] = together
            if len(self.dtypes) > MAX_KEYS:
                raise Invalid(
                    f"{self.name}: expected at most {MAX_KEYS} different keys; give every row the same ones",
                    code="too_large",
                )
        problems.raise_any()
        if not self.dtypes:
            raise Invalid(f"{self.name}: expected objects with keys, got none", code="empty_dataset")

    def _rows(self, problems: Problems) -> Iterator[tuple[bytes, _Row]]:
        """Each line with its object; blank lines are left out."""
        number = 0
        with self._tree.open(self.name) as file:
            while line := file.readline(BLOCK_BYTES + 1):
                if len(line) > BLOCK_BYTES:
                    raise Invalid(
                        f"{self.name}: expected at most {BLOCK_BYTES} bytes a line; one object a line",
                        code="bad_jsonl",
                    )
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
                if not line.strip():
                    continue
                number += 1
                try:
                    row = _DECODER.decode(line)
                except _UNREADABLE as error:
                    message = f"expected one flat object of strings, numbers, bools and nulls ({error})"
                    problems.add(row_pointer(self.name, number), "bad_jsonl", message)
                    continue
                yield line, row

    def _batch(self, rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
        columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
        return trimmed(pa.record_batch(columns, schema=schema), self.name)


def looks_like_jsonl(head: bytes) -> bool:
    """Whether a file that begins so holds JSON lines: its first line, or as much of it as is here, is an
    object."""
    first, newline, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not first.startswith(b"{"):
        return False
    try:
        return isinstance(msgspec.json.decode(first), dict)
    except _UNREADABLE:
        return not newline and first.startswith((b'{"', b'{ "'))  # a first line longer than the head


def _dtype_of(value: str | int | float | bool | None) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int() if _INT64_MIN <= value <= _INT64_MAX:
            return "int64"
        case int() | float():
            return "float64"
        case str():
            return "string"


def _column(values: list[Any], dtype: pa.DataType) -> pa.Array:
    if pa.types.is_floating(dtype):  # Arrow refuses whole numbers that a float64 rounds
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, dtype)


def _wider(known: str | None, came: str | None) -> str | None:
    """The type that holds both; None where there is none."""
    if known is None or came is None or known == came:
        return known or came
    return "float64" if {known, came} == {"int64", "float64"} else None
