"""What a file says of itself, so that a stranger can use it: strings by name, lists as JSON."""

from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from core.data.targets import INPUT
from core.nets.artifacts import VersionManifest
from core.predict import Predictor

#: Names of tensors and of other programs' entries stand in the same header.
PREFIX = "modelyard."


class Port(Struct, frozen=True):
    """A tensor that goes in or comes out; -1 stands for any number of rows."""

    name: str
    dtype: str
    shape: list[int]


class Ports(Struct, frozen=True):
    inputs: list[Port]
    outputs: list[Port]


def ports_of(
    manifest: VersionManifest, inputs: Sequence[Tensor], outputs: Tensor, num_rows: int = -1
) -> Ports:
    """Of tensors [B, …] of which B is `num_rows`, -1 for any."""
    names = list(manifest.inputs) or [INPUT]
    answer = manifest.signature.outputs[0].name if manifest.signature.outputs else "output"
    while answer in names:
        answer += "_out"
    return Ports(
        [_port(name, tensor, num_rows) for name, tensor in zip(names, inputs, strict=True)],
        [_port(answer, outputs, num_rows)],
    )


def describe(predictor: Predictor, ports: Ports) -> dict[str, str]:
    """How values become the net's inputs, what the net is, and what its answers mean."""
    manifest = predictor.manifest
    said: dict[str, Any] = {
        "task": manifest.task,
        "inputs": ports.inputs,
        "outputs": ports.outputs,
        "classes": manifest.classes,
        "columns": manifest.inputs or None,
        "image_mode": manifest.image_mode,
        "transforms": manifest.transforms or None,
        "prepare": manifest.prepare or None,
        "readout": predictor.readout,
        "net": manifest.model,
        "plugins": manifest.plugins or None,
        "torch": torch.__version__,
    }
    return {f"{PREFIX}{name}": text_of(value) for name, value in said.items() if value is not None}


def text_of(value: Any) -> str:
    """A string as it is, anything else as JSON."""
    return str(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def _port(name: str, tensor: Tensor, num_rows: int) -> Port:
    return Port(name, str(tensor.dtype).removeprefix("torch."), [num_rows, *tensor.shape[1:]])
