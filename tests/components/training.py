"""Every optimizer, schedule, sampler and initializer in a job of one step."""

from typing import Any

import pyarrow as pa

from core.data.manifest import Manifest
from tests.attempts import VALIDATION, Component, arrays, c, generator, seq, table
from tests.components.example import LINEAR, ROWS, Example, classification, regression

#: Muon takes matrices alone.
_MATRIX = c("Linear", out_features=1, bias=False)


def optimizer(name: str) -> Example:
    return regression(optimizer=c(name), model=_MATRIX if name == "Muon" else LINEAR)


_HELD = [c("LinearLR"), c("ExponentialLR", gamma=0.9)]
_SCHEDULERS: dict[str, Component] = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1, 3]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 3},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
    "OneCycleLR": {"max_lr": 0.1},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 1.0},
    "SequentialLR": {"schedulers": _HELD, "milestones": [1]},
    "ChainedScheduler": {"schedulers": _HELD},
    "LambdaLR": {"lr_lambda": "0.5 ** (step + 1)"},
    "MultiplicativeLR": {"lr_lambda": "0.9"},
}
SCHEDULERS = {
    name: regression(
        optimizer=c("SGD", lr=0.05, momentum=0.9),
        scheduler=c(name, **keywords),
    )
    for name, keywords in _SCHEDULERS.items()
}


def weighted() -> tuple[Manifest, pa.Table]:
    rng = generator()
    columns = {name: rng.standard_normal(ROWS + VALIDATION) for name in ("a", "b", "target")}
    return table(columns | {"often": rng.random(ROWS + VALIDATION) + 0.1})


SAMPLERS: dict[str, Example] = {
    "SequentialSampler": regression(trainer={"sampler": c("SequentialSampler")}),
    "RandomSampler": regression(trainer={"sampler": c("RandomSampler", replacement=True, num_samples=5)}),
    "WeightedRandomSampler": Example(
        {"model": LINEAR, "trainer": {"sampler": c("WeightedRandomSampler", weights="often")}}, weighted
    ),
    "SubsetRandomSampler": classification(
        trainer={"sampler": c("SubsetRandomSampler", indices=[0, 2, 3, 5])}
    ),
}

_INITIALIZERS: dict[str, Any] = {"constant_": {"val": 0.1}, "sparse_": {"sparsity": 0.3}}


def initializer(name: str) -> Example:
    """Of a convolution and the Linear after it, where its function takes both."""
    layers = ["Linear", "Conv2d"]
    if name in ("eye_", "sparse_"):
        layers.remove("Conv2d")
    if name == "dirac_":
        layers.remove("Linear")
    entries = [c(name, layer=layer, parameter="weight", **_INITIALIZERS.get(name, {})) for layer in layers]
    model = seq(c("Conv2d", out_channels=3, kernel_size=3), c("Flatten"), c("Linear", out_features=1))
    data = arrays([3, 5, 5], classes=None, train=ROWS, validation=ROWS)
    return Example({"model": model, "initialize": entries}, data)
