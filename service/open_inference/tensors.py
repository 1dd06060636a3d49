"""One tensor between the wire and numpy: raw little-endian bytes, or a list in JSON. No HTTP, no torch.

BF16 is float32 here, which holds it exactly; BYTES is an object array of `bytes`, with None for a null.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import Invalid
from core.faults import show, suggestion

BYTES = "BYTES"
BF16 = "BF16"
BOOL = "BOOL"

#: The dtypes that numpy has; on the wire they are little-endian, in C order, without padding.
DTYPES: dict[str, np.dtype[Any]] = {
    BOOL: np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = (*DTYPES, BF16, BYTES)

#: As many as numpy takes.
MAX_DIMS = 32
#: Far more than any body holds, and few enough for numpy to count; a size of 0 counts as 1.
MAX_ELEMENTS = 2**40

_LENGTH = struct.Struct("<I")


def check_kind(name: str, datatype: str, shape: Sequence[int]) -> None:
    """Raises Invalid for a datatype that the protocol doesn't have, and for a shape that no array has."""
    if datatype not in DATATYPES:
        raise Invalid(
            f"input {show(name)}: expected a datatype of {', '.join(DATATYPES)}, got {show(datatype)}."
            f"{suggestion(datatype, DATATYPES)}",
            code="invalid_datatype",
        )
    is_possible = len(shape) <= MAX_DIMS and min(shape, default=0) >= 0
    if not is_possible or math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise Invalid(
            f"input {show(name)}: expected a shape of at most {MAX_DIMS} sizes, none of them negative, of at "
            f"most {MAX_ELEMENTS} elements, got {show(list(shape))}.",
            code="invalid_shape",
        )


def from_binary(name: str, datatype: str, shape: Sequence[int], raw: memoryview) -> NDArray[Any]:
    """Raises Invalid where `raw` is not exactly the tensor; sizes are compared before any room is made."""
    if datatype == BYTES:
        return _strings(name, shape, raw)
    size = 2 if datatype == BF16 else DTYPES[datatype].itemsize
    expected = math.prod(shape) * size
    if len(raw) != expected:
        raise Invalid(
            f"input {show(name)}: expected {expected} bytes for {datatype} {list(shape)}, got {len(raw)}.",
            code="invalid_size",
        )
    if datatype == BF16:
        halves = np.frombuffer(raw, dtype="<u2").astype("<u4")
        floats: NDArray[Any] = (halves << 16).view("<f4").reshape(shape)
        return floats
    if datatype == BOOL:  # any byte but 0 is true, and numpy's own holds 0 or 1
        flags: NDArray[Any] = np.frombuffer(raw, dtype=np.uint8) != 0
        return flags.reshape(shape)
    # A copy: a view of received bytes cannot be written to, which torch warns of.
    return np.frombuffer(raw, dtype=DTYPES[datatype]).reshape(shape).copy()


def from_json(name: str, datatype: str, shape: Sequence[int], data: object) -> NDArray[Any]:
    """From a list, flat or nested as `shape` is. Raises Invalid where values or their number don't fit."""
    if datatype == BF16:
        raise Invalid(
            f"input {show(name)}: BF16 has no form in JSON; send it as binary data.", code="invalid_datatype"
        )
    if not isinstance(data, list):
        raise Invalid(f"input {show(name)}: expected data as a list, got {show(data)}.", code="invalid_data")
    flat = _flat(name, shape, data)
    kinds = set(map(type, flat))
    dtype = DTYPES.get(datatype)
    _require_kinds(name, datatype, kinds)
    try:
        if dtype is None:
            return _objects([None if text is None else text.encode() for text in flat], shape)
        if dtype.kind == "f":
            flat = (
                [math.nan if number is None else number for number in flat] if type(None) in kinds else flat
            )
        with np.errstate(over="ignore"):  # what a float cannot hold is infinite: the model looks for that
            return np.array(flat, dtype=dtype).reshape(shape)
    except (OverflowError, UnicodeEncodeError) as error:
        raise Invalid(
            f"input {show(name)}: expected values that {datatype} can hold ({error}).", code="invalid_data"
        ) from error


def to_binary(array: NDArray[Any], datatype: str) -> bytes:
    if datatype == BYTES:
        return b"".join(chain.from_iterable((_LENGTH.pack(len(item)), item) for item in array.flat))
    return array.astype(DTYPES[datatype], copy=False).tobytes()


def to_json(array: NDArray[Any], datatype: str) -> list[Any]:
    """Flat, in C order."""
    if datatype == BYTES:
        return [item.decode() for item in array.flat]
    return list(array.ravel().tolist())


def size_bytes(array: NDArray[Any]) -> int:
    """With the bytes of its strings."""
    texts = sum(len(item) for item in array.flat if item is not None) if array.dtype == object else 0
    return array.nbytes + texts


def _strings(name: str, shape: Sequence[int], raw: memoryview) -> NDArray[Any]:
    """Each element is its length in four bytes, then so many bytes."""
    count = math.prod(shape)
    if count * _LENGTH.size > len(raw):
        raise _broken_strings(name, shape, f"{len(raw)} bytes are too few")
    items: list[bytes] = []
    start = 0
    while start < len(raw):
        end = start + _LENGTH.size
        if len(items) == count:
            raise _broken_strings(name, shape, f"{len(raw) - start} bytes more came")
        if end <= len(raw):
            start, end = end, end + _LENGTH.unpack_from(raw, start)[0]
        if end > len(raw):
            raise _broken_strings(name, shape, f"element {len(items)} ends beyond the last byte")
        items.append(bytes(raw[start:end]))
        start = end
    if len(items) != count:
        raise _broken_strings(name, shape, f"got {len(items)} of them")
    return _objects(items, shape)


def _broken_strings(name: str, shape: Sequence[int], came: str) -> Invalid:
    return Invalid(
        f"input {show(name)}: expected BYTES {list(shape)}, each element after its length in four bytes; "
        f"{came}.",
        code="invalid_size",
    )


def _flat(name: str, shape: Sequence[int], data: list[Any]) -> list[Any]:
    level = data
    if list in set(map(type, data)):
        level = [data]
        for size in shape:
            if not all(isinstance(part, list) and len(part) == size for part in level):
                raise Invalid(
                    f"input {show(name)}: expected a flat list, or one nested as the shape {list(shape)} "
                    "says; it is nested in another way.",
                    code="invalid_shape",
                )
            level = list(chain.from_iterable(level))
    if len(level) != math.prod(shape):
        raise Invalid(
            f"input {show(name)}: expected {math.prod(shape)} values for the shape {list(shape)}, "
            f"got {len(level)}.",
            code="invalid_shape",
        )
    return level


def _require_kinds(name: str, datatype: str, kinds: set[type]) -> None:
    dtype = DTYPES.get(datatype)
    taken: set[type]
    match dtype.kind if dtype is not None else BYTES:
        case "b":
            taken, said = {bool}, "true or false"
        case "i" | "u":
            taken, said = {int}, "integers"
        case "f":
            taken, said = {int, float, type(None)}, "numbers"
        case _:
            taken, said = {str, type(None)}, "strings"
    if not kinds <= taken:
        came = ", ".join(sorted(kind.__name__ for kind in kinds - taken))
        raise Invalid(f"input {show(name)}: expected {said} for {datatype}, got {came}.", code="invalid_data")


def _objects(items: list[bytes | None] | list[bytes], shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)
