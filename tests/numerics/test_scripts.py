"""Twelve specs beside the PyTorch that a person would write for them: with the same seed the outputs, the
loss, the gradients and the weights after three steps are equal to the bit, on the CPU in fp32."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from tests.attempts import (
    BATCH,
    ROWS,
    SEED,
    TEXT_STEPS,
    Component,
    Data,
    arrays,
    attempt_of,
    c,
    numbers,
    seq,
    texts,
)
from tests.scripts import (
    STEPS,
    Script,
    cnn,
    graph,
    gru,
    he_initialized,
    huber,
    linear,
    lstm,
    mlp,
    multilabel,
    residual,
    resnet,
    transformer,
)
from workers import trainer

# B rows in the batch, T steps of a sequence


@dataclass
class Case:
    name: str
    spec: Component
    data: Data
    inputs: Callable[[pa.Table], tuple[Tensor, ...]]
    target: Callable[[pa.Table], Tensor]
    script: Callable[[], Script]


# How a script reads them


def array_x(shape: list[int]) -> Callable[[pa.Table], tuple[Tensor, ...]]:
    def read(rows: pa.Table) -> tuple[Tensor, ...]:
        flat = rows.column("x").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        x = torch.from_numpy(np.array(flat)).reshape(-1, *shape)
        return (v2.functional.to_dtype(x, torch.float32, scale=True) if x.dtype == torch.uint8 else x,)

    return read


def labels(rows: pa.Table) -> Tensor:
    return torch.tensor(rows.column("y").to_pylist())


def column(name: str) -> Callable[[pa.Table], Tensor]:
    return lambda rows: torch.tensor(rows.column(name).to_pylist(), dtype=torch.float32)[:, None]


def matrix(*names: str) -> Callable[[pa.Table], Tensor]:
    return lambda rows: torch.tensor(
        np.stack([rows.column(name).to_numpy() for name in names], axis=1), dtype=torch.float32
    )


def tokens(length: int) -> Callable[[pa.Table], tuple[Tensor, ...]]:
    """Word to number by how often it comes, then by its letters; 0 pads and 1 is unknown."""

    def read(rows: pa.Table) -> tuple[Tensor, ...]:
        split = [line.split() for line in rows.column("text").to_pylist()]
        counts: dict[str, int] = {}
        for line in split[:ROWS]:
            for word in line:
                counts[word] = counts.get(word, 0) + 1
        order = sorted(counts, key=lambda word: (-counts[word], word))
        ids = {word: place + 2 for place, word in enumerate(order)}
        found = [[ids[word] for word in line][:length] for line in split]
        return (torch.tensor([line + [0] * (length - len(line)) for line in found]),)

    return read


RELU, FLATTEN = c("ReLU"), c("Flatten")
IMAGES = arrays([3, 8, 8], classes=4, dtype="uint8")

CASES = [
    Case(
        "the notes' NeuralNetwork",
        {
            "model": seq(
                FLATTEN,
                c("Linear", out_features=32),
                RELU,
                c("Linear", out_features=32),
                RELU,
                c("Linear", out_features=10),
            ),
            "optimizer": c("SGD", lr=1e-2),
        },
        arrays([1, 28, 28], classes=10, dtype="uint8"),
        array_x([1, 28, 28]),
        labels,
        mlp,
    ),
    Case(
        "a CNN with dropout and a schedule of steps",
        {
            "model": seq(
                c("Conv2d", out_channels=6, kernel_size=3, padding=1),
                c("BatchNorm2d"),
                RELU,
                c("MaxPool2d", kernel_size=2),
                c("Dropout", p=0.25),
                FLATTEN,
                c("Linear", out_features=4),
            ),
            "optimizer": c("SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
            "scheduler": c("StepLR", step_size=2, gamma=0.5, interval="step"),
        },
        IMAGES,
        array_x([3, 8, 8]),
        labels,
        cnn,
    ),
    Case(
        "ResNet-18 with a frozen base and two learning rates",
        {
            "model": c("resnet18"),
            "freeze": [r"(conv1|bn1|layer[123])\..*"],
            "optimizer": c("AdamW", lr=1e-4, param_groups=[{"match": r"fc\..*", "lr": 1e-2}]),
        },
        arrays([3, 32, 32], classes=4, dtype="uint8"),
        array_x([3, 32, 32]),
        labels,
        resnet,
    ),
    Case(
        "an LSTM on text",
        {
            "prepare": TEXT_STEPS,
            "model": seq(
                c("Embedding", embedding_dim=8, padding_idx=0),
                c("LSTM", hidden_size=16, num_layers=2, dropout=0.1, output="last"),
                c("Linear", out_features=2),
            ),
            "optimizer": c("Adam", lr=1e-2),
        },
        texts,
        tokens(6),
        lambda rows: torch.tensor([int(label) for label in rows.column("label").to_pylist()]),
        lstm,
    ),
    Case(
        "a transformer encoder on text in one cycle",
        {
            "prepare": TEXT_STEPS,
            "model": seq(
                c("Embedding", embedding_dim=8),
                c("PositionalEncoding", dropout=0.1),
                c(
                    "TransformerEncoder",
                    encoder_layer=c("TransformerEncoderLayer", nhead=2, dim_feedforward=16),
                    num_layers=2,
                ),
                c("mean", dim=1),
                c("Linear", out_features=2),
            ),
            "optimizer": c("AdamW", lr=1e-3),
            "scheduler": c("OneCycleLR", max_lr=1e-2),
            "trainer": {"epochs": 4},
        },
        texts,
        tokens(6),
        lambda rows: torch.tensor([int(label) for label in rows.column("label").to_pylist()]),
        transformer,
    ),
    Case(
        "a table with a robust loss",
        {
            "prepare": [],
            "model": seq(
                c("Linear", out_features=16), c("BatchNorm1d"), c("SiLU"), c("Linear", out_features=1)
            ),
            "loss": c("HuberLoss", delta=0.5),
            "optimizer": c("RMSprop", lr=1e-2),
        },
        numbers("a", "b", "c"),
        lambda rows: (matrix("a", "b", "c")(rows),),
        column("target"),
        huber,
    ),
    Case(
        "linear regression",
        {"prepare": [], "model": c("Linear", out_features=1), "optimizer": c("SGD", lr=0.1)},
        numbers("a", "b", "c"),
        lambda rows: (matrix("a", "b", "c")(rows),),
        column("target"),
        linear,
    ),
    Case(
        "a Graph of two inputs",
        {
            "prepare": [],
            "inputs": {"a": ["p", "q"], "b": ["r"]},
            "model": c(
                "Graph",
                nodes=[
                    c("Linear", name="left", inputs=["a"], out_features=4),
                    c("Tanh", name="left_tanh", inputs=["left"]),
                    c("Linear", name="right", inputs=["b"], out_features=4),
                    c("Tanh", name="right_tanh", inputs=["right"]),
                    c("Bilinear", name="joined", inputs=["left_tanh", "right_tanh"], out_features=3),
                    c("add", name="sum", inputs=["left_tanh", "right_tanh"]),
                    c("cat", name="both", inputs=["joined", "sum"]),
                    c("Linear", name="out", inputs=["both"], out_features=1),
                ],
                output="out",
            ),
            "loss": c("SmoothL1Loss"),
            "optimizer": c("Adagrad", lr=0.05),
        },
        numbers("p", "q", "r"),
        lambda rows: (matrix("p", "q")(rows), matrix("r")(rows)),
        column("target"),
        graph,
    ),
    Case(
        "a residual block and two branches",
        {
            "model": seq(
                c("Conv2d", out_channels=4, kernel_size=1),
                c(
                    "Residual",
                    layers=[
                        c("Conv2d", out_channels=4, kernel_size=3, padding=1),
                        c("GroupNorm", num_groups=2),
                        c("GELU"),
                    ],
                ),
                c(
                    "Parallel",
                    branches=[c("AdaptiveAvgPool2d", output_size=2), c("AdaptiveMaxPool2d", output_size=2)],
                ),
                FLATTEN,
                c("Linear", out_features=4),
            ),
            "loss": c("CrossEntropyLoss", label_smoothing=0.1),
            "optimizer": c("NAdam", lr=1e-2),
            "scheduler": c("CosineAnnealingLR", T_max=6, interval="step"),
        },
        IMAGES,
        array_x([3, 8, 8]),
        labels,
        residual,
    ),
    Case(
        "three labels at once",
        {
            "task": "multilabel",
            "model": seq(
                c("Linear", out_features=16), c("ELU"), c("Dropout", p=0.2), c("Linear", out_features=3)
            ),
            "loss": c("BCEWithLogitsLoss", pos_weight=[1.0, 2.0, 0.5]),
            "optimizer": c("Adamax", lr=1e-2),
        },
        arrays([5], classes=None, width=3),
        array_x([5]),
        lambda rows: torch.tensor(rows.column("y").to_pylist()),
        multilabel,
    ),
    Case(
        "He's start, class weights and a warm-up",
        {
            "model": seq(
                c("Conv2d", out_channels=6, kernel_size=3),
                c("BatchNorm2d"),
                c("LeakyReLU", negative_slope=0.1),
                FLATTEN,
                c("Linear", out_features=4),
            ),
            "initialize": [
                c("kaiming_normal_", layer="Conv2d", parameter="weight", mode="fan_out", nonlinearity="relu"),
                c("ones_", layer="BatchNorm2d", parameter="weight"),
                c("zeros_", layer="BatchNorm2d", parameter="bias"),
            ],
            "loss": c("CrossEntropyLoss", class_weights=[1.0, 2.0, 3.0, 4.0]),
            "optimizer": c("RAdam", lr=1e-2),
            "scheduler": c(
                "SequentialLR",
                schedulers=[
                    c("LinearLR", start_factor=0.1, total_iters=2),
                    c("ExponentialLR", gamma=0.9),
                ],
                milestones=[2],
                interval="step",
            ),
        },
        IMAGES,
        array_x([3, 8, 8]),
        labels,
        he_initialized,
    ),
    Case(
        "a GRU both ways over a sequence",
        {
            "model": seq(
                c("GRU", hidden_size=6, bidirectional=True, output="mean"),
                c("LayerNorm"),
                c("Linear", out_features=1),
            ),
            "loss": c("L1Loss"),
            "optimizer": c("Adadelta", lr=1.0),
        },
        arrays([7, 4], classes=None),
        array_x([7, 4]),
        lambda rows: torch.tensor(rows.column("y").to_pylist())[:, None],
        gru,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_spec_trains_as_its_script_does_to_the_bit(case: Case, tmp_path: Path) -> None:
    manifest, rows = case.data()
    mine = attempt_of(case.spec, manifest, rows, tmp_path)
    _, training, cursor = mine.begin()
    torch.manual_seed(SEED)
    script = case.script()
    inputs, targets = case.inputs(rows), case.target(rows)
    loss_sum = torch.zeros((), dtype=torch.float64)

    assert [tuple(p.shape) for p in training.net.parameters()] == [
        tuple(p.shape) for p in script.net.parameters()
    ]
    with torch.no_grad():  # in eval, so that no dropout draws
        first = tuple(x[:BATCH] for x in inputs)
        assert torch.equal(training.net.eval()(*first), script.net.eval()(*first))
    state = torch.get_rng_state()
    loop = trainer.fit(training, cursor)
    for step in range(STEPS):
        torch.set_rng_state(state)
        next(loop)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        here = slice(step * BATCH, (step + 1) * BATCH)
        script.net.train()
        script.optimizer.zero_grad()
        loss = script.loss(script.net(*[x[here] for x in inputs]), targets[here])
        loss.backward()
        script.optimizer.step()
        if script.schedule is not None:
            script.schedule.step()
        state = torch.get_rng_state()
        assert torch.equal(state, after), "both draw the same numbers"
        loss_sum += counted(script, loss.detach(), targets[here])
        assert cursor.loss_sum.item() == loss_sum.item()
        for a, b in zip(training.net.parameters(), script.net.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None)
            assert a.grad is None or b.grad is None or torch.equal(a.grad, b.grad)
    for a, b in zip(training.net.state_dict().values(), script.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def counted(script: Script, loss: Tensor, targets: Tensor) -> Tensor:
    """The batch's part of the epoch's sum: a weighted cross entropy's mean is over the weights."""
    weight = getattr(script.loss, "weight", None)
    if weight is not None and targets.dtype == torch.int64:
        return loss.double() * weight[targets].double().sum()
    return loss.double() * len(targets)
