"""Weights, training state and version manifests as files: data, never pickled code.

`weights.pt` is a plain `state_dict` for `torch.load(path, weights_only=True)`.
"""

from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import field
from torch import Tensor, nn

from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.legacy import upgraded
from core.nets.readout import Readout
from core.storage.durable import StoredFile, describe
from modelyard.specs import Signature
from modelyard.specs.jobspec import Task


class Golden(msgspec.Struct, frozen=True):
    """A validation sample as a user would send it, and what the trained net answered.

    `instance` is the JSON instance; an image is its bytes in base64. `outputs` are the scores of all
    classes, or the values of a regression.
    """

    instance: Any
    outputs: list[float]


class VersionManifest(msgspec.Struct, frozen=True):
    """Everything that predicting needs beside the weights.

    `row_shape` is that of one row after the deterministic prefix of the transforms; `inputs` are the columns
    of each input of the net (empty in versions of format 1, which had one); `readout` makes answers of what
    the net gives (format 1: a softmax for a classification, nothing for a regression); `plugins` are the
    `package==version` of each type that isn't torch's or ours. `raw_shape` and
    `raw_dtype` are those of one instance of an `arrays` dataset. `tolerance` bounds the difference
    between a golden output and its replay, absolute for scores and relative to 1 + |value| for a
    regression.
    """

    task: Task
    kind: Kind
    model: dict[str, Any]
    row_shape: list[int]
    classes: list[str] | None
    transforms: list[dict[str, Any]]
    prepare: list[FittedColumn]
    signature: Signature
    golden: list[Golden]
    tolerance: float
    image_mode: str | None = None
    raw_shape: list[int] | None = None
    raw_dtype: str | None = None
    inputs: dict[str, list[str]] = field(default_factory=dict)
    readout: Readout | None = None
    plugins: dict[str, str] = field(default_factory=dict)
    format: int = 2


def save(value: Any, path: Path) -> StoredFile:
    """Writes with `torch.save`; the bytes are made durable by whoever adopts the file."""
    torch.save(value, path)
    return describe(path)


def load(path: Path, *, is_mapped: bool = False) -> Any:
    """Tensors and plain values only; raises `pickle.UnpicklingError` on anything else. With `is_mapped` the
    numbers stay in the file, which is then a zip archive, until they are looked at."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)


def plain_state_dict(net: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU, keys as in a plain script; weights that are one stay one. It stays torch's own kind
    of dict: some of torchvision's nets ask it for the versions of their modules when they load it. A
    host-device sync."""
    state: dict[str, Tensor] = net.state_dict()
    state.update(copied(dict(state)))
    return state


def copied(value: Any) -> Any:
    """The same lists and mappings, with each tensor copied to the CPU, contiguous; what shares its numbers
    shares them still. A host-device sync."""
    return _copied(value, {})


def _copied(value: Any, seen: dict[tuple[Any, ...], Tensor]) -> Any:
    match value:
        case Tensor():
            key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
            if key not in seen or not value.numel():
                seen[key] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
            return seen[key]
        case dict():
            return {name: _copied(inner, seen) for name, inner in value.items()}
        case list():
            return [_copied(inner, seen) for inner in value]
        case tuple():
            return tuple(_copied(inner, seen) for inner in value)
        case _:
            return value


def read_manifest(path: Path) -> VersionManifest:
    raw = msgspec.json.decode(path.read_bytes())
    if raw["format"] == 1:
        raw["prepare"] = upgraded(raw["prepare"])
    return msgspec.convert(raw, VersionManifest)


def write_manifest(manifest: VersionManifest, path: Path) -> StoredFile:
    path.write_bytes(msgspec.json.encode(manifest))
    return describe(path)
