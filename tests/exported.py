"""Versions of every kind, with rows as a user sends them and, made by hand, as the net takes them."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from core.data.manifest import Kind
from core.data.prepare import FittedColumn
from core.data.prepare.operations import Imputed, Indexed, Padded, Spread, SpreadFeature, Standardized
from core.data.target_columns import Scaling
from core.db.models import Version
from core.nets import artifacts
from core.nets.artifacts import Golden, VersionManifest
from core.nets.readout import Readout
from core.nets.transforms import resolve
from core.settings import Settings
from modelyard.specs import Signature
from modelyard.specs import Tensor as TensorInfo
from tests.make_data import encode
from tests.running_service import Owner

# N instances, C classes or values

CLASSES = ["a", "b", "c"]
NUM_ROWS = 5


@dataclass(frozen=True)
class Case:
    """`make` gives the net with fresh weights, `read` makes answers [N, C] of what it gives; both by hand."""

    make: Callable[[], nn.Module]
    read: Callable[[Tensor], Tensor]
    net: nn.Module
    described: VersionManifest
    instances: list[Any]
    inputs: list[Tensor]

    def answers(self, net: nn.Module) -> Tensor:
        with torch.inference_mode():
            return self.read(net.eval()(*self.inputs))


def linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequential", "layers": list(layers)}


def mlp() -> Case:
    values = np.random.default_rng(0).normal(size=(NUM_ROWS, 4)).astype(np.float32)
    return _case(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
        sequential(linear(4, 8), {"type": "ReLU"}, linear(8, 3)),
        instances=values.tolist(),
        inputs=[torch.from_numpy(values)],
        row_shape=[4],
        raw_shape=[4],
        raw_dtype="float32",
    )


def cnn_with_batch_norm() -> Case:
    pixels = np.random.default_rng(1).integers(0, 256, (NUM_ROWS, 1, 8, 8), dtype=np.uint8)
    layers = sequential(
        {"type": "Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 3},
        {"type": "BatchNorm2d", "num_features": 4},
        {"type": "ReLU"},
        {"type": "MaxPool2d", "kernel_size": 2},
        {"type": "Flatten"},
        {"type": "Dropout", "p": 0.5},
        linear(36, 3),
    )
    return _images(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(36, 3),
        ),
        layers,
        pixels,
    )


def resnet18() -> Case:
    pixels = np.random.default_rng(2).integers(0, 256, (NUM_ROWS, 3, 32, 32), dtype=np.uint8)
    return _images(
        lambda: torchvision.models.resnet18(num_classes=3),
        {"type": "resnet18", "num_classes": 3, "weights": None},
        pixels,
    )


class OfText(nn.Module):
    """`LSTM` with `output: last` as a plain script writes it; the names are those of a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("0", nn.Embedding(7, 6, padding_idx=0))
        self.add_module("1", nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True))
        self.add_module("2", nn.Linear(10, 3))

    def forward(self, tokens_NT: Tensor) -> Tensor:
        embed, lstm, head = self.children()
        steps_NTH, _ = lstm(embed(tokens_NT))
        last_NH: Tensor = head(torch.cat([steps_NTH[:, -1, :5], steps_NTH[:, 0, 5:]], dim=-1))
        return last_NH


def lstm_text() -> Case:
    words = ["the", "cat", "sat", "on", "mat"]  # 2, 3, …; 0 is padding and 1 is unknown
    recurrent = {
        "type": "LSTM",
        "input_size": 6,
        "hidden_size": 5,
        "num_layers": 2,
        "batch_first": True,
        "bidirectional": True,
        "output": "last",
    }
    return _case(
        OfText,
        sequential(
            {"type": "Embedding", "num_embeddings": 7, "embedding_dim": 6, "padding_idx": 0},
            recurrent,
            linear(10, 3),
        ),
        kind=Kind.TABLE,
        instances=[
            {"text": text} for text in ("the cat sat", "on the mat", "a dog", "cat", "mat mat mat mat")
        ],
        inputs=[torch.tensor([[0, 2, 3, 4], [0, 5, 2, 6], [0, 0, 1, 1], [0, 0, 0, 3], [6, 6, 6, 6]])],
        row_shape=[4],
        columns={"text": ["text"]},
        prepare=[FittedColumn("text", "string", [Indexed(words), Padded(4, "left")])],
    )


def table() -> Case:
    """A regression whose target was scaled."""
    ages, cities = [20.0, None, 61.0, 44.5, 30.0], ["rome", "bern", "oslo", "x", "rome"]
    known = ["bern", "oslo", "rome"]
    rows = [
        [((age or 40.0) - 38.0) / 12.5, *(float(city == name) for name in known)]
        for age, city in zip(ages, cities, strict=True)
    ]
    mean, std = 1000.0, 250.0
    return _case(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)),
        sequential(linear(4, 8), {"type": "Tanh"}, linear(8, 1)),
        lambda outputs: outputs.double() * std + mean,
        kind=Kind.TABLE,
        instances=[{"age": age, "city": city} for age, city in zip(ages, cities, strict=True)],
        inputs=[torch.tensor(rows)],
        row_shape=[4],
        columns={"input": ["age", "city"]},
        prepare=[
            FittedColumn("age", "number", [Imputed([40.0]), Standardized([38.0], [12.5])]),
            FittedColumn("city", "string", [Spread([SpreadFeature(known, 3)])]),
        ],
        task="regression",
        classes=None,
        readout=Readout("none", scaling=Scaling([mean], [std])),
    )


CASES = {make.__name__: make for make in (mlp, cnn_with_batch_norm, resnet18, lstm_text, table)}


def register(me: Owner, settings: Settings, case: Case, *, state: str = "ready") -> Version:
    """The newest version of the model `m`, as a worker registers it."""
    number = me.version(settings, case.net, state=state)
    with me.database.write() as session:
        row = session.query(Version).filter_by(owner=me.name, version=number).one()
        path = settings.resolved_home() / "artifacts" / row.manifest_key
        row.manifest_sha256 = artifacts.write_manifest(case.described, path).sha256
        session.commit()
        session.refresh(row)
        session.expunge(row)
    return row


def off_by(case: Case, difference: float) -> Case:
    """With golden outputs that the net doesn't give."""
    golden = [
        msgspec.structs.replace(one, outputs=[value + difference for value in one.outputs])
        for one in case.described.golden
    ]
    return replace(case, described=msgspec.structs.replace(case.described, golden=golden))


def _case(
    make: Callable[[], nn.Module],
    model: dict[str, Any],
    read: Callable[[Tensor], Tensor] = lambda outputs: outputs.softmax(dim=1),
    *,
    instances: list[Any],
    inputs: list[Tensor],
    golden: list[Any] | None = None,
    columns: dict[str, list[str]] | None = None,
    **fields: Any,
) -> Case:
    torch.manual_seed(3)
    net = make()
    net.train()
    with torch.no_grad():
        for _ in range(3):  # so that batch norms have seen something
            net(*inputs)
        answers_NC = read(net.eval()(*inputs))
    task = fields.get("task", "classification")
    output = TensorInfo("value" if task == "regression" else "scores", "FP32", [-1, answers_NC.shape[1]])
    defaults = {"task": task, "kind": Kind.ARRAYS, "classes": CLASSES, "transforms": [], "prepare": []}
    described = VersionManifest(
        model=model,
        signature=Signature([], [output]),
        golden=[
            Golden(instance, answers)
            for instance, answers in zip(golden or instances, answers_NC.tolist(), strict=True)
        ],
        tolerance=1e-4,
        inputs=columns or {},
        **(defaults | fields),
    )
    return Case(make, read, net, described, instances, inputs)


def _images(make: Callable[[], nn.Module], model: dict[str, Any], pixels: Any) -> Case:
    channels = pixels.shape[1]
    mean, std = [0.4, 0.5, 0.6][:channels], [0.2, 0.25, 0.3][:channels]
    pictures = [Image.fromarray(one[0] if channels == 1 else one.transpose(1, 2, 0)) for one in pixels]
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return _case(
        make,
        model,
        kind=Kind.IMAGES,
        instances=pixels.tolist(),
        inputs=[(torch.from_numpy(pixels).float() / 255 - shift) / scale],
        golden=[base64.b64encode(encode(picture)).decode() for picture in pictures],
        row_shape=list(pixels.shape[1:]),
        transforms=resolve([{"type": "Normalize", "mean": mean, "std": std}]),
        image_mode="L" if channels == 1 else "RGB",
    )
