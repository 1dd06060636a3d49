"""A small model of each kind of row, as its manifest and its net, for what predicts."""

from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import (
    Encoded,
    Imputed,
    ImputedText,
    Padded,
    Spread,
    SpreadFeature,
    Standardized,
    Truncated,
)
from core.nets.artifacts import VersionManifest
from core.nets.transforms import resolve
from modelyard.specs import Signature, Tensor

Described = tuple[VersionManifest, nn.Module]

CLASSES = ["cat", "dog", "eel", "fox"]


def images() -> Described:
    """RGB of any size, resized to 6 x 5."""
    torch.manual_seed(1)
    model = _sequential({"type": "Flatten"}, _linear(90, 4))
    normalize = {"type": "Normalize", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    manifest = _manifest(
        [Tensor("input", "UINT8", [-1, 3, -1, -1])],
        kind=Kind.IMAGES,
        model=model,
        row_shape=[3, 6, 5],
        transforms=resolve([{"type": "Resize", "size": [6, 5]}, normalize]),
        image_mode="RGB",
    )
    return manifest, nn.Sequential(nn.Flatten(), nn.Linear(90, 4))


def table() -> Described:
    """A number and a string, both of which may be missing, and a bool that may not."""
    torch.manual_seed(2)
    manifest = _manifest(
        [Tensor("age", "FP64", [-1]), Tensor("city", "BYTES", [-1]), Tensor("vip", "BOOL", [-1])],
        kind=Kind.TABLE,
        model=_linear(5, 4),
        row_shape=[5],
        prepare=[
            FittedColumn("age", "number", [Imputed([40.0]), Standardized([38.0], [12.5])]),
            FittedColumn(
                "city",
                "string",
                [ImputedText("rome"), Spread([SpreadFeature(["bern", "oslo", "rome"], 3)])],
            ),
            FittedColumn("vip", "bool", []),
        ],
        inputs={"input": ["age", "city", "vip"]},
    )
    return manifest, nn.Linear(5, 4)


def text() -> Described:
    """The first 8 bytes of a text."""
    torch.manual_seed(3)
    layers = (
        {"type": "Embedding", "num_embeddings": 257, "embedding_dim": 2},
        {"type": "Flatten"},
        _linear(16, 4),
    )
    manifest = _manifest(
        [Tensor("text", "BYTES", [-1])],
        kind=Kind.TABLE,
        model=_sequential(*layers),
        row_shape=[8],
        prepare=[FittedColumn("text", "string", [Encoded(), Truncated(8), Padded(8)])],
        inputs={"text": ["text"]},
    )
    return manifest, nn.Sequential(nn.Embedding(257, 2), nn.Flatten(), nn.Linear(16, 4))


def arrays(dtype: str = "float32", datatype: str = "FP32") -> Described:
    torch.manual_seed(4)
    manifest = _manifest(
        [Tensor("input", datatype, [-1, 3])],
        kind=Kind.ARRAYS,
        model=_linear(3, 4),
        row_shape=[3],
        raw_shape=[3],
        raw_dtype=dtype,
    )
    return manifest, nn.Linear(3, 4)


def regressor() -> Described:
    """Two values a row."""
    torch.manual_seed(5)
    manifest = _manifest(
        [Tensor("input", "FP32", [-1, 3])],
        [Tensor("value", "FP32", [-1, 2])],
        task="regression",
        classes=None,
        kind=Kind.ARRAYS,
        model=_linear(3, 2),
        row_shape=[3],
        raw_shape=[3],
        raw_dtype="float32",
    )
    return manifest, nn.Linear(3, 2)


def pictures(rows: int, height: int = 9, width: int = 8) -> NDArray[np.uint8]:
    """[rows, 3, height, width]"""
    return np.random.default_rng(rows).integers(0, 256, (rows, 3, height, width), dtype=np.uint8)


def encoded(pixels_CHW: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels_CHW.transpose(1, 2, 0)).save(buffer, kind, **options)
    return buffer.getvalue()


def _manifest(takes: list[Tensor], gives: list[Tensor] | None = None, **fields: Any) -> VersionManifest:
    scores = [Tensor("scores", "FP32", [-1, 4]), Tensor("label", "BYTES", [-1])]
    defaults: dict[str, Any] = {
        "task": "classification",
        "classes": CLASSES,
        "transforms": [],
        "prepare": [],
        "signature": Signature(takes, gives or scores),
        "golden": [],
        "tolerance": 1e-4,
    }
    return VersionManifest(**(defaults | fields))


def _linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def _sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequential", "layers": list(layers)}
