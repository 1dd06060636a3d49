"""`application/vnd.apache.arrow.stream`: a row of the stream is a row of the model's table, an image, or an
array."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from core.data.instances import BadInstance
from core.data.manifest import Kind
from core.errors import Invalid
from service.prediction_bodies.arrow_arrays import arrays_of
from service.prediction_bodies.arrow_cells import Allowance, cells_of
from service.prediction_bodies.arrow_read import table_of_stream
from service.prediction_bodies.columns import Takes, require_columns

MEDIA_TYPE = "application/vnd.apache.arrow.stream"


def rows_of_arrow(data: bytes, takes: Takes) -> list[Any]:
    """Row objects for a table; of the one column there is, encoded images or arrays otherwise. Values are as
    they came: a null, and NaN in a table, are missing. Raises Invalid where the bytes are no stream of what
    the model takes, TooLarge past its bounds."""
    table = table_of_stream(data)
    if takes.kind is Kind.TABLE:
        return list(_row_objects(table, takes))
    if table.num_columns != 1:
        names = ", ".join(table.column_names[:20])[:200]
        raise Invalid(
            f"Expected one column of {takes.kind}, got {table.num_columns} ({names}). Send that one alone.",
            code="columns",
        )
    chunks = table.column(0).chunks
    if takes.kind is Kind.IMAGES and _holds_bytes(table.schema.types[0]):
        allowance = Allowance()
        files = [file for chunk in chunks for file in allowance.unpack(chunk)]
        return [BadInstance("expected an image, got null") if file is None else file for file in files]
    return [row for chunk in chunks for row in arrays_of(chunk)]


def _row_objects(table: pa.Table, takes: Takes) -> Iterator[dict[str, Any]]:
    names = table.column_names
    require_columns(names, takes)
    allowance = Allowance()
    columns = [
        [cell for chunk in table.column(name).chunks for cell in cells_of(chunk, name, allowance)]
        for name in names
    ]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _holds_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
