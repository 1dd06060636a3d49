"""Every loss, metric and target transform with a target it is made for."""

from typing import Any

import pyarrow as pa

from core.data.manifest import Manifest
from core.nets.components.metrics import BINARY, MULTICLASS, MULTILABEL
from tests.attempts import VALIDATION, Component, c, generator, seq, table
from tests.components.example import LINEAR, ROWS, Example, classification, features, regression

LABELS = 3


def multilabel(*end: Component, **fields: Any) -> Example:
    model = seq(c("Linear", out_features=LABELS), *end)
    return Example({"task": "multilabel", "model": model} | fields, features(width=LABELS))


def alike() -> tuple[Manifest, pa.Table]:
    """Numbers, and whether they are alike: 1 or -1."""
    rng = generator()
    columns = {name: rng.standard_normal(ROWS + VALIDATION) for name in "abc"}
    return table(columns | {"target": rng.choice([-1, 1], ROWS + VALIDATION)})


def counts() -> tuple[Manifest, pa.Table]:
    rng = generator()
    columns = {name: rng.standard_normal(ROWS + VALIDATION) for name in "abc"}
    return table(columns | {"target": rng.poisson(3.0, ROWS + VALIDATION).astype("float64")})


def pairs(loss: Component, num_outputs: int, width: int, **fields: Any) -> Example:
    """A Graph of as many Linears as the loss compares."""
    names = [f"way{place}" for place in range(num_outputs)]
    nodes = [c("Linear", name=name, inputs=["input"], out_features=width) for name in names]
    output = names[0] if num_outputs == 1 else names
    return Example(
        {"prepare": [], "model": c("Graph", nodes=nodes, output=output), "loss": loss} | fields, alike
    )


_ONE_HOT = {"target_transform": [c("OneHot")]}

LOSSES: dict[str, Example] = {
    "CrossEntropyLoss": classification(loss=c("CrossEntropyLoss", label_smoothing=0.1)),
    "NLLLoss": Example(
        {"model": seq(c("Linear", out_features=3), c("LogSoftmax")), "loss": c("NLLLoss")},
        features(classes=3),
    ),
    "MultiMarginLoss": classification(loss=c("MultiMarginLoss")),
    "BCELoss": multilabel(c("Sigmoid"), loss=c("BCELoss")),
    **{
        kind: multilabel(loss=c(kind))
        for kind in (
            "BCEWithLogitsLoss",
            "SoftMarginLoss",
            "MultiLabelMarginLoss",
            "MultiLabelSoftMarginLoss",
        )
    },
    **{kind: regression(loss=c(kind)) for kind in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")},
    "KLDivLoss": Example(
        {"model": seq(c("Linear", out_features=3), c("LogSoftmax")), "loss": c("KLDivLoss")} | _ONE_HOT,
        features(classes=3),
    ),
    "PoissonNLLLoss": Example({"model": LINEAR, "loss": c("PoissonNLLLoss")}, counts),
    "GaussianNLLLoss": regression(model=c("Linear", out_features=2), loss=c("GaussianNLLLoss")),
    "HingeEmbeddingLoss": pairs(c("HingeEmbeddingLoss"), 1, 1),
    "CosineEmbeddingLoss": pairs(c("CosineEmbeddingLoss"), 2, 4),
    "MarginRankingLoss": pairs(c("MarginRankingLoss"), 2, 1),
    "TripletMarginLoss": pairs(c("TripletMarginLoss"), 3, 4, inputs=["a", "b", "c"]),
}

#: What a metric can't do without, by its name without a prefix.
_KEYWORDS: dict[str, Component] = {
    "FBetaScore": {"beta": 0.5},
    "CriticalSuccessIndex": {"threshold": 0.1},
    "MinkowskiDistance": {"p": 3.0},
}
#: Of quantities above -1, answered with such.
_COUNTED = {"model": LINEAR, "initialize": [c("zeros_")]}


def metric(name: str) -> Example:
    """Measured after the step on the split `val`."""
    if name == "MeanSquaredLogError":
        return Example(_COUNTED | {"metrics": [c(name, name="asked")]}, counts)
    for prefix, example in (
        (MULTICLASS, classification()),
        (BINARY, classification(2)),
        (MULTILABEL, multilabel()),
        ("", regression()),
    ):
        if name.startswith(prefix):
            short = name.removeprefix(prefix)
            component = c(name, name="asked", **_KEYWORDS.get(short, {}))
            return Example(example.spec | {"metrics": [component]}, example.data)
    raise AssertionError("every name starts with nothing")


TARGET_TRANSFORMS: dict[str, Example] = {
    "Map": classification(target_transform=[c("Map", labels=["1", "2"], to="rest")]),
    "OneHot": classification(loss=c("MSELoss"), **_ONE_HOT),
    "Bin": regression(model=c("Linear", out_features=3), target_transform=[c("Bin", edges=[-0.5, 0.5])]),
    "Standardize": regression(target_transform=[c("Standardize")]),
    "Log1p": Example({"model": LINEAR, "target_transform": [c("Log1p")]}, counts),
}
TARGET_TRANSFORMS["Map"].spec["model"] = seq(c("Linear", out_features=2))
