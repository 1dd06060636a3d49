"""Parts: some thousand rows each, an Arrow file with a record a row, answered or not."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from core.errors import Invalid
from core.storage.durable import describe
from workers.predictions.answers import Answering, Record
from workers.predictions.link import Link
from workers.predictions.messages import BatchOrder, Committed, Piece, Progressed, Written
from workers.predictions.rows import Rows

#: A part is closed after so long even where it has few rows: that is what a kill may cost.
PART_S = 10.0
#: The supervisor hears this often how far it is.
PROGRESS_EVERY_S = 0.25

WHERE = {"row": pa.int64(), "split": pa.string()}
WHY = {"code": pa.string(), "message": pa.string()}


def schema_of(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """Of a part: a row has `code` and `message` where it has no answer."""
    return pa.schema([*WHERE.items(), *columns.items(), *WHY.items()])


def write_parts(order: BatchOrder, link: Link, answering: Answering, rows: Rows) -> None:
    """From the order's `start` to the end. Each part is durable and has its row before the next begins.
    Raises Invalid where there are fewer rows than were counted."""
    schema = schema_of(answering.columns)
    done, errors, told_at = order.start, order.errors, 0.0
    part: Part | None = None
    for instances in rows.chunks(order.start, answering.rows):
        part = part or Part(Path(order.scratch), done, schema)
        part.add(answering.answer(instances), rows)
        done, errors = done + len(instances), errors + part.last_errors
        if time.monotonic() - told_at >= PROGRESS_EVERY_S:
            told_at = time.monotonic()
            link.send(Progressed(done, errors))
        if part.rows >= order.part_rows or part.age_s >= PART_S:
            hand_over(part, link)
            part = None
    if part is not None:
        hand_over(part, link)
    link.send(Progressed(done, errors))
    if done != rows.count:
        raise Invalid(f"expected the {rows.count} rows that were counted, got {done}; send the rows again")


def hand_over(part: "Part", link: Link) -> None:
    link.send(Written(part.close()))
    link.wait_for(Committed)


class Part:
    """A part in the making: memory holds one chunk of it."""

    def __init__(self, folder: Path, start: int, schema: pa.Schema) -> None:
        self._path = folder / f"{start}.arrow"
        self._schema, self._start = schema, start
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)
        self._began = time.monotonic()
        self.rows = self.errors = self.last_errors = 0

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began

    def add(self, records: Sequence[Record], rows: Rows) -> None:
        first = self._start + self.rows
        numbered = [
            {"row": row, "split": rows.split_of(row), **record} for row, record in enumerate(records, first)
        ]
        self._writer.write_batch(pa.RecordBatch.from_pylist(numbered, self._schema))
        self.last_errors = sum("code" in record for record in records)
        self.rows += len(records)
        self.errors += self.last_errors

    def close(self) -> Piece:
        self._writer.close()
        self._file.close()
        return Piece(self._start, self.rows, self.errors, describe(self._path))
