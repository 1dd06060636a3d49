"""Weights in safetensors' format that somebody uploaded: a JSON header with names, types, shapes and places,
then the numbers. What the header says is held against the file before anything is allocated.

Format: https://github.com/huggingface/safetensors (README, "Format").
"""

import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

#: A header of so many names is parsed in milliseconds; the format itself allows 100 MB.
MAX_HEADER_BYTES = 1024 * 1024
MAX_TENSORS = 10_000

_LENGTH = struct.Struct("<Q")


class BadTensors(Exception):
    """What is wrong with the file, as the end of a sentence that names it."""


def is_safetensors(path: Path) -> bool:
    """By the brace after the header's length; a zip and a pickle have something else there."""
    with path.open("rb") as file:
        head = file.read(_LENGTH.size + 1)
    return head[_LENGTH.size :] == b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """By name; their numbers stay in the file until they are looked at. Raises BadTensors, also for tensors
    that overlap, leave gaps or reach beyond the file."""
    with path.open("rb") as file:
        (header_bytes,) = _LENGTH.unpack(file.read(_LENGTH.size))
    if header_bytes > MAX_HEADER_BYTES:
        raise BadTensors(
            f"has a header of {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read: leave metadata out"
        )
    try:
        with safe_open(path, framework="pt") as tensors:
            names = tensors.keys()
            if len(names) > MAX_TENSORS:
                raise BadTensors(f"holds {len(names)} tensors, at most {MAX_TENSORS} are read")
            return {name: tensors.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise BadTensors(f"is no whole safetensors file ({error}): save it again") from error
