"""A checkpoint: the weights and the training state of a job at a step."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct, field


class WeightsFormat(StrEnum):
    """`pt` and `safetensors` are the tensors by name; `onnx` and `torch_export` the net's graph as well."""

    PT = "pt"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    TORCH_EXPORT = "torch_export"

    @property
    def suffix(self) -> str:
        """Of a file's name."""
        return "pt2" if self is WeightsFormat.TORCH_EXPORT else str(self)


class Checkpoint(Struct):
    """`size` and `sha256` are those of the weights file. `state`: `ready`, or `collected` once its
    bytes were given back."""

    id: str
    job: str
    step: int
    epoch: int
    size: int
    sha256: str
    state: str
    is_best: bool
    created_at: datetime
    metrics: dict[str, float | None] = field(default_factory=dict)
