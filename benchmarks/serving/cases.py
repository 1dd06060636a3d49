"""The nets that are served, in the words of a spec. No torch: `nets.py` says the same to plain PyTorch."""

from dataclasses import dataclass, field

from benchmarks.training.cases import CNN as TRAINED_CNN
from benchmarks.training.cases import MLP as TRAINED_MLP
from benchmarks.training.cases import NORMALIZE, SEED, Component


@dataclass(frozen=True)
class Case:
    """`shape` is channels, height, width of the images; `tile` the side of the squares that they are made of.
    It is trained for a second or two: its weights matter, its accuracy does not."""

    name: str
    title: str
    shape: tuple[int, int, int]
    tile: int
    model: Component
    per_class: int
    epochs: int
    lr: float
    transforms: list[Component] = field(default_factory=list)

    def spec(self, dataset: str, name: str | None = None, seed: int = SEED) -> Component:
        return {
            "name": name or self.name,
            "dataset": dataset,
            "model": self.model,
            "transforms": {"train": self.transforms, "eval": self.transforms},
            "optimizer": {"type": "SGD", "lr": self.lr},
            "trainer": {
                "epochs": self.epochs,
                "batch_size": 20,
                "precision": "fp32",
                "device": "cpu",
                "seed": seed,
            },
        }


MLP = Case(
    name="mlp",
    title="784-512-512-10, one image of 28x28",
    shape=(1, 28, 28),
    tile=4,
    model={"type": "Sequential", "layers": TRAINED_MLP.layers},
    per_class=20,
    epochs=3,
    lr=0.1,
)

CNN = Case(
    name="cnn",
    title="3 blocks 32-64-128 with batch norm, one image of 32x32",
    shape=(3, 32, 32),
    tile=4,
    model={"type": "Sequential", "layers": TRAINED_CNN.layers},
    per_class=20,
    epochs=2,
    lr=0.01,
    transforms=[NORMALIZE],
)

RESNET = Case(
    name="resnet18",
    title="ResNet-18, one image of 224x224",
    shape=(3, 224, 224),
    tile=32,
    model={"type": "resnet18", "num_classes": 10, "weights": None},
    per_class=4,
    epochs=2,
    lr=0.01,
    transforms=[NORMALIZE],
)

CASES = {case.name: case for case in (MLP, CNN, RESNET)}
