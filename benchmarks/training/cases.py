"""The trainings that are compared, in the words of a spec and in numbers. No torch: the plain scripts say the
same in `nets.py` and in their own transforms."""

from dataclasses import dataclass, field
from typing import Any, Literal

Component = dict[str, Any]
Precision = Literal["fp32", "auto"]

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
SEED = 1729


def block(width: int) -> list[Component]:
    return [
        {"type": "Conv2d", "out_channels": width, "kernel_size": 3, "padding": 1},
        {"type": "BatchNorm2d"},
        {"type": "ReLU"},
        {"type": "MaxPool2d", "kernel_size": 2},
    ]


@dataclass(frozen=True)
class Bar:
    """`what` is the quotient of training samples/s, or of the whole times; of `precision` to the notes'
    loop."""

    what: Literal["training", "whole"]
    precision: Precision
    at_least: float


@dataclass(frozen=True)
class Case:
    """`workers` are those of the notes' DataLoader; None is one a core. `least_accuracy` on the test split
    shows that a side did train."""

    name: str
    title: str
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    layers: list[Component]
    least_accuracy: float
    workers: int | None = 0
    train: list[Component] = field(default_factory=list)
    evaluation: list[Component] = field(default_factory=list)
    bars: tuple[Bar, ...] = ()

    def spec(self, dataset: str, precision: Precision) -> Component:
        """Of the job that trains it on the CPU, a checkpoint each epoch."""
        transforms = {"transforms": {"train": self.train, "eval": self.evaluation}} if self.train else {}
        return {
            "name": f"{self.name}-{precision}",
            "dataset": dataset,
            "model": {"type": "Sequential", "layers": self.layers},
            "optimizer": {"type": "SGD", "lr": self.lr, "momentum": self.momentum},
            "trainer": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "precision": precision,
                "device": "cpu",
                "seed": SEED,
            },
            **transforms,
        }


NORMALIZE: Component = {"type": "Normalize", "mean": MEAN, "std": STD}

MLP = Case(
    name="mlp",
    title="784-512-512-10, 60,000 images of 28x28, batch 64, SGD, 5 epochs",
    epochs=5,
    batch_size=64,
    lr=0.1,
    momentum=0.0,
    layers=[
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 512},
        {"type": "ReLU"},
        {"type": "Linear", "out_features": 512},
        {"type": "ReLU"},
        {"type": "Linear", "out_features": 10},
    ],
    least_accuracy=0.93,
    bars=(
        Bar("training", "fp32", 1.9),
        Bar("training", "auto", 2.5),
        Bar("whole", "fp32", 1.6),
        Bar("whole", "auto", 2.0),
    ),
)

CNN = Case(
    name="cnn",
    title="3 blocks 32-64-128, batch norm, JPEGs of 32x32, flip and normalise, batch 128, SGD, 10 epochs",
    epochs=10,
    batch_size=128,
    lr=0.01,
    momentum=0.9,
    layers=[
        *block(32),
        *block(64),
        *block(128),
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 10},
    ],
    least_accuracy=0.2,
    train=[{"type": "RandomHorizontalFlip"}, NORMALIZE],
    evaluation=[NORMALIZE],
    bars=(
        Bar("training", "fp32", 1.9),
        Bar("training", "auto", 3.0),
        Bar("whole", "fp32", 1.6),
        Bar("whole", "auto", 2.3),
    ),
)

PHOTOS = Case(
    name="photos",
    title="a small net, JPEGs of 224x224 and other sizes, RandomResizedCrop(224), batch 64, SGD, 3 epochs",
    epochs=3,
    batch_size=64,
    lr=0.05,
    momentum=0.9,
    layers=[
        {"type": "Conv2d", "out_channels": 16, "kernel_size": 8, "stride": 8},
        {"type": "ReLU"},
        {"type": "MaxPool2d", "kernel_size": 2},
        {"type": "Conv2d", "out_channels": 32, "kernel_size": 3, "stride": 2},
        {"type": "ReLU"},
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 10},
    ],
    least_accuracy=0.0,
    workers=None,
    train=[{"type": "RandomResizedCrop", "size": [224, 224]}, NORMALIZE],
    evaluation=[
        {"type": "Resize", "size": [256]},
        {"type": "CenterCrop", "size": [224, 224]},
        NORMALIZE,
    ],
    bars=(Bar("training", "fp32", 1.0),),
)

CASES = {case.name: case for case in (MLP, CNN, PHOTOS)}
