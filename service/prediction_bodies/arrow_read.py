"""The batches of an Arrow IPC stream whose bytes are hostile: no more memory than they have, then validated.

A few hundred bytes of a compressed stream may unpack to gigabytes, and pyarrow unpacks a batch as soon as it
is read. So each message's head is looked at first, at the one place that tells.
"""

import struct

import pyarrow as pa

from core.errors import Invalid, TooLarge
from modelyard.specs import MAX_INSTANCES

#: A batch may hold one row.
MAX_MESSAGES = 2 * MAX_INSTANCES

#: A KeyError is what pyarrow makes of a type of Arrow's that it does not know.
_READ_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, struct.error)

# The slots of Message, RecordBatch and DictionaryBatch that are read, and the kinds of header; by Message.fbs
# of the Arrow format.
_HEADER_TYPE, _HEADER, _COMPRESSION, _DATA = 1, 2, 3, 1
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def table_of_stream(data: bytes) -> pa.Table:
    """Columns as they came, each offset, index and text in them checked. Raises Invalid where the bytes are
    no stream or are compressed, TooLarge past `MAX_INSTANCES` rows."""
    try:
        _refuse_compressed(data)
        with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
            _require_readable(reader.schema)
            batches = []
            num_rows = 0
            for batch in reader:
                num_rows += batch.num_rows
                if num_rows > MAX_INSTANCES:
                    raise TooLarge(
                        f"One request holds at most {MAX_INSTANCES} rows. Send the others in another."
                    )
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=reader.schema)
    except _READ_ERRORS as error:
        raise Invalid(
            f"Expected a whole Arrow IPC stream, as pyarrow.ipc.new_stream writes it: {_said(error)}.",
            code="bad_arrow",
        ) from error
    if not num_rows:
        raise Invalid("Expected rows in the Arrow stream, got none.", code="bad_arrow")
    return table


def _require_readable(schema: pa.Schema) -> None:
    """Names and types are text that Arrow has not looked at. Raises UnicodeDecodeError."""
    _ = [(field.name, str(field.type)) for field in schema]


def _refuse_compressed(data: bytes) -> None:
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
    for number, message in enumerate(reader):
        if number == MAX_MESSAGES:
            raise TooLarge(f"An Arrow stream has at most {MAX_MESSAGES} messages here. Send larger batches.")
        if is_compressed(message.metadata.to_pybytes()):
            raise Invalid(
                "Expected an Arrow stream without compression, got a compressed one. Write it with "
                "pyarrow.ipc.IpcWriteOptions(compression=None).",
                code="compressed",
            )


def is_compressed(head: bytes) -> bool:
    """Whether the buffers of a message with this head (a flatbuffer) are compressed. Raises struct.error
    where it points outside itself."""
    message = _offset(head, 0)
    kind_at = _slot(head, message, _HEADER_TYPE)
    header_at = _slot(head, message, _HEADER)
    if kind_at is None or header_at is None:
        return False
    (kind,) = struct.unpack_from("<B", head, kind_at)
    batch = _offset(head, header_at)
    if kind == _DICTIONARY_BATCH:
        data_at = _slot(head, batch, _DATA)
        if data_at is None:
            return False
        batch = _offset(head, data_at)
    elif kind != _RECORD_BATCH:
        return False
    return _slot(head, batch, _COMPRESSION) is not None


def _slot(head: bytes, table: int, number: int) -> int | None:
    """Where the field of a flatbuffer's table stands; None where it is left out."""
    (back,) = struct.unpack_from("<i", head, table)
    vtable = table - back
    if vtable < 0:
        raise struct.error("a table before the message")
    (size,) = struct.unpack_from("<H", head, vtable)
    at = 4 + 2 * number
    if at + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", head, vtable + at)
    return table + offset if offset else None


def _offset(head: bytes, at: int) -> int:
    (offset,) = struct.unpack_from("<I", head, at)
    return int(at + offset)


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
