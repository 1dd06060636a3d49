"""The plan's memory beside what a training measures: the bytes of all tensors that live, at their most, in the
second and third step of the worker's own loop on the CPU."""

import gc
import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.data.manifest import Manifest
from core.nets.plan import Source, check
from tests.attempts import Component, Data, arrays, c, generator, seq, table
from workers import trainer

TOLERANCE = 0.25
STEPS = 3

RELU, FLATTEN = c("ReLU"), c("Flatten")
ADAMW, SGD = c("AdamW", lr=1e-4), c("SGD", lr=1e-3)


def conv(out_channels: int, **keywords: Any) -> list[Component]:
    return [c("Conv2d", out_channels=out_channels, kernel_size=3, padding=1, **keywords), RELU]


def mlp(width: int) -> Component:
    wide = c("Linear", out_features=width)
    return seq(FLATTEN, wide, RELU, wide, RELU, c("Linear", out_features=10))


CNN = seq(
    *conv(32),
    c("BatchNorm2d"),
    c("MaxPool2d", kernel_size=2),
    *conv(64),
    c("Dropout", p=0.25),
    c("MaxPool2d", kernel_size=2),
    FLATTEN,
    c("Linear", out_features=10),
)
#: As in VGG: nearly all parameters are in the head, behind a few convolutions.
BIG_HEAD = seq(
    *conv(16),
    c("MaxPool2d", kernel_size=2),
    *conv(32),
    c("MaxPool2d", kernel_size=2),
    FLATTEN,
    c("Linear", out_features=1024),
    RELU,
    c("Dropout", p=0.5),
    c("Linear", out_features=1024),
    RELU,
    c("Linear", out_features=10),
)
LSTM = seq(
    c("LSTM", hidden_size=64, num_layers=2, dropout=0.1, bidirectional=True, output="last"),
    c("Linear", out_features=10),
)
GRU = seq(c("GRU", hidden_size=64, output="mean"), c("Linear", out_features=10))


def encoder(dropout: float) -> Component:
    layer = c("TransformerEncoderLayer", nhead=4, dim_feedforward=128, dropout=dropout)
    return seq(
        c("Linear", out_features=64),
        c("PositionalEncoding", dropout=dropout),
        c("TransformerEncoder", encoder_layer=layer, num_layers=3),
        c("mean", dim=1),
        c("Linear", out_features=10),
    )


def unet() -> Component:
    """A skip over a bottleneck: the first activation lives until the last layer."""
    down = [c("MaxPool2d", kernel_size=2), *conv(32), c("Upsample", scale_factor=2), *conv(16)]
    return seq(*conv(16), c("Residual", layers=down), c("AdaptiveAvgPool2d", output_size=1), FLATTEN,
               c("Linear", out_features=10))  # fmt: skip


def images(side: int, rows: int, channels: int = 3) -> Data:
    return arrays([channels, side, side], classes=10, dtype="uint8", train=rows)


def measurements() -> tuple[Manifest, pa.Table]:
    rng = generator()
    columns = {f"x{place}": rng.standard_normal(3 * 256 + 4) for place in range(20)}
    return table(columns | {"target": rng.standard_normal(3 * 256 + 4)})


def case(
    name: str, model: Component, data: Data, batch: int, optimizer: Component = ADAMW, **fields: Any
) -> Any:
    spec = {"model": model, "optimizer": optimizer, "trainer": {"batch_size": batch}} | fields
    return pytest.param(spec, data, id=name)


CASES = [
    case("MLP, AdamW", mlp(512), images(28, 96, 1), 32),
    case("MLP, SGD", mlp(512), images(28, 96, 1), 32, SGD),
    case("MLP, SGD with momentum", mlp(512), images(28, 96, 1), 32, SGD | {"momentum": 0.9}),
    case("MLP, Adafactor", mlp(512), images(28, 96, 1), 32, c("Adafactor", lr=1e-2)),
    case("MLP, AdamW for each", mlp(512), images(28, 96, 1), 32, ADAMW | {"foreach": True}),
    case("CNN", CNN, images(32, 192), 64),
    case("ResNet-18", c("resnet18"), images(64, 48), 16, SGD | {"momentum": 0.9}),
    case("ResNet-18 with a frozen base", c("resnet18"), images(64, 48), 16, freeze=[r"(conv1|bn1|layer\d)\..*"]),
    case("ResNet-50", c("resnet50"), images(64, 24), 8),
    case("big head", BIG_HEAD, images(32, 48), 16),
    case("VGG-11", c("vgg11"), images(64, 12), 4, SGD),
    case("MobileNet", c("mobilenet_v3_small"), images(96, 24), 8),
    case("DenseNet-121", c("densenet121"), images(64, 12), 4),
    case("LSTM", LSTM, arrays([60, 16], classes=10, train=96), 32),
    case("GRU", GRU, arrays([60, 16], classes=10, train=96), 32),
    case("transformer encoder", encoder(0.1), arrays([64, 16], classes=10, train=96), 32),
    case("transformer encoder without dropout", encoder(0.0), arrays([64, 16], classes=10, train=96), 32),
    case("ViT-B/16", c("vit_b_16"), images(64, 12), 4),
    case("Swin", c("swin_t"), images(64, 12), 4),
    case("ConvNeXt", c("convnext_tiny"), images(64, 12), 4),
    case("skip", unet(), images(64, 48), 16),
    case("table", seq(c("Linear", out_features=64), c("BatchNorm1d"), RELU, c("Linear", out_features=1)),
         measurements, 256, prepare=[]),
    case("linear", c("Linear", out_features=1), measurements, 256, SGD, prepare=[]),
]  # fmt: skip


class Live(TorchDispatchMode):
    """The bytes of all tensors that live, as operations give them; a storage counts once."""

    def __init__(self, tensors: Iterator[Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.refs: dict[int, Any] = {}
        self.peak = 0
        for tensor in tensors:
            self.see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.see(tensor)
        return out

    def see(self, tensor: Tensor, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self.sizes:
            self.sizes[address] = storage.nbytes() if counts else 0
            self.refs[address] = weakref.ref(storage, lambda _: self.forget(address))
            self.peak = max(self.peak, sum(self.sizes.values()))

    def forget(self, address: int) -> None:
        del self.sizes[address], self.refs[address]
