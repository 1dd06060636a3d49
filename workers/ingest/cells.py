"""Cells of a table, from whatever file they come: bounded, trimmed, empty ones missing."""

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import Invalid

MAX_CELL_BYTES = 1024 * 1024

#: A row must fit into one block.
BLOCK_BYTES = 8 * 1024 * 1024


def trimmed(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """`name` is the file's, for errors."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        cells = plain(column)
        if pa.types.is_string(cells.type):
            longest = pc.max(pc.binary_length(cells)).as_py() or 0
            if longest > MAX_CELL_BYTES:
                raise Invalid(
                    f"{name}: expected at most {MAX_CELL_BYTES} bytes a cell, "
                    f"column {field.name!r} has {longest}",
                    code="too_large",
                )
            cells = pc.utf8_trim_whitespace(cells)
            cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
        columns.append(cells)
    return pa.record_batch(columns, names=batch.schema.names)


def plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
