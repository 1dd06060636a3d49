"""What a user sends as one instance -> the raw array that the dataset would hold. No torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import Invalid

#: Beyond what numpy's arrays and torch's layers take.
MAX_DIMS = 32


class BadInstance(Invalid):
    """One instance cannot be read."""

    code = "bad_instance"


def pixels_from_json(instance: object, channels: int) -> NDArray[np.uint8]:
    """[C, H, W] from nested lists: CHW, HWC where that is unambiguous, HW for one channel; 0..255."""
    if channels == 1 and (pixels_HW := _bytes_of_rows(instance)) is not None:
        return pixels_HW[None]
    array = _array(instance)
    if array.dtype.kind not in "iu" or array.size == 0:
        raise BadInstance(f"pixels are integers from 0 to 255, got {_kind(array)}")
    if array.min() < 0 or array.max() > 255:
        raise BadInstance(f"pixels are 0 to 255, got {array.min()} to {array.max()}")
    if array.ndim == 2 and channels == 1:
        array = array[None]
    elif array.ndim == 3 and array.shape[0] != channels and array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or array.shape[0] != channels:
        raise BadInstance(
            f"expected an image of {channels} channels as CHW or HWC, got shape {list(array.shape)}"
        )
    return np.ascontiguousarray(array, dtype=np.uint8)


def array_from_json(instance: object, shape: list[int], dtype: str) -> NDArray[Any]:
    """An array of the dataset's own shape and dtype; integers stay exact, uint8 keeps its bounds."""
    array = _array(instance)
    if list(array.shape) != shape:
        raise BadInstance(f"expected an array of shape {shape}, got {list(array.shape)}")
    wanted = np.dtype(dtype)
    if wanted.kind == "b":
        if array.dtype.kind != "b":
            raise BadInstance(f"expected true or false, got {_kind(array)}")
    elif wanted.kind in "iu":
        if array.dtype.kind not in "iu":
            raise BadInstance(f"expected {dtype}, got {_kind(array)}")
        bounds = np.iinfo(wanted)
        if array.size and (array.min() < bounds.min or array.max() > bounds.max):
            raise BadInstance(
                f"expected {dtype} ({bounds.min} to {bounds.max}), got {array.min()} to {array.max()}"
            )
    elif array.dtype.kind not in "iuf":
        raise BadInstance(f"expected numbers, got {_kind(array)}")
    with np.errstate(over="ignore"):
        values = array.astype(wanted)
    if not np.isfinite(values).all():
        raise BadInstance(f"expected finite {dtype}, got a number that it cannot hold")
    return values


def _bytes_of_rows(instance: object) -> NDArray[np.uint8] | None:
    """Rows of integers from 0 to 255, a fifth of the time of the long way; None where they are anything
    else, and the long way says what."""
    if not isinstance(instance, list) or set(map(type, instance)) != {list}:
        return None
    widths = set(map(len, instance))
    if len(widths) != 1 or 0 in widths or type(instance[0][0]) is bool:
        return None
    try:
        values = bytearray().join(map(bytes, instance))
    except (TypeError, ValueError):
        return None
    return np.frombuffer(values, np.uint8).reshape(len(instance), -1)


def _array(instance: object) -> NDArray[Any]:
    if isinstance(instance, list):
        _require_numbers(instance)
    try:
        array = np.array(instance)
    except (ValueError, OverflowError) as error:  # ragged lists, integers over 64 bits
        raise BadInstance("expected nested lists of equal lengths") from error
    if array.dtype.kind not in "biuf":
        raise BadInstance(f"expected nested lists of numbers, got {_kind(array)}")
    return array


def _require_numbers(instance: list[Any], depth: int = 1) -> None:
    """Before numpy sees it: for one long text among many values it makes room for that text at each place."""
    if depth > MAX_DIMS:
        raise BadInstance(f"expected lists nested at most {MAX_DIMS} deep")
    kinds = set(map(type, instance))
    if str in kinds:
        raise BadInstance("expected nested lists of numbers, got strings")
    if not kinds <= {int, float, bool, list}:
        raise BadInstance("expected nested lists of numbers, got values of different kinds")
    if list in kinds:
        for inner in instance:
            if isinstance(inner, list):
                _require_numbers(inner, depth + 1)


def _kind(array: NDArray[Any]) -> str:
    match array.dtype.kind:
        case "f":
            return "numbers with a fraction"
        case "b":
            return "true or false"
        case "U":
            return "strings"
        case "i" | "u":
            return f"{array.size} integers"
        case _:
            return "values of different kinds"
