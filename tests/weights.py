"""Files of weights that are code, or that promise more than they hold."""

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import torch
from torchvision import models

from core.nets.safetensors_file import MAX_HEADER_BYTES, MAX_TENSORS


class Code:
    """What a pickle does when it is read by those who trust it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def pickles(marker: Path) -> dict[str, bytes]:
    """torch's own formats, a bare pickle, and code that hides behind true weights."""
    made = {}
    state = models.squeezenet1_1(num_classes=3).state_dict()
    for name, value in {"alone": Code(marker), "hidden": {**state, "last": Code(marker)}}.items():
        for is_zip in (True, False):
            out = io.BytesIO()
            torch.save(value, out, _use_new_zipfile_serialization=is_zip)
            made[f"{name}, {'zip' if is_zip else 'legacy'}"] = out.getvalue()
    return made


def tensors(**changes: Any) -> bytes:
    """A whole file of two tensors, but for what is changed in their entries."""
    entries = {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]},
    }
    for name, change in changes.items():
        entries[name] = entries.get(name, entries["a"]) | change
    return packed(json.dumps(entries).encode(), bytes(32))


def packed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


HEADER_BOMBS = {
    "header of a terabyte": packed(b'{"a":', bytes(64), length=2**40),
    "header beyond the file": packed(b'{"a":', bytes(64), length=MAX_HEADER_BYTES),
    "header of blanks": packed(b"{" + b" " * (MAX_HEADER_BYTES + 1) + b"}"),
    "header nested": packed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "too many tensors": packed(
        b"{"
        + b",".join(
            b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(MAX_TENSORS + 1)
        )
        + b"}"
    ),
    "overlapping": tensors(b={"data_offsets": [8, 24]}),
    "all on one place": tensors(b={"data_offsets": [0, 16]}),
    "a gap": tensors(b={"data_offsets": [20, 36]}),
    "beyond the file": tensors(b={"shape": [2**40], "data_offsets": [16, 2**42 + 16]}),
    "a shape that multiplies past 64 bits": tensors(b={"shape": [2**33, 2**33]}),
    "another size than its place": tensors(b={"shape": [5]}),
    "backwards": tensors(b={"data_offsets": [32, 16]}),
    "no such type": tensors(b={"dtype": "F1024"}),
}
