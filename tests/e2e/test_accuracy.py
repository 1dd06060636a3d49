"""What the service trains is as good as what a plain script trains on the same rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from torch import nn
from torchvision.transforms import v2

from core.data.manifest import Manifest
from core.data.splits import set_aside
from core.nets.randomness import permutation
from deploy.embed import RunningStack
from modelyard import Client, JobHandle
from modelyard.specs import Dataset, Split
from tests import plain_loop
from tests.make_data import csv_bytes, zip_bytes
from tests.needs import needs_file

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MNIST = DATA / "mnist-12k-csv-png.zip"
CIFAR = DATA / "cifar10-12k-folders-jpeg.zip"
SEED = 1729

CIFAR_MEAN = [0.4914, 0.4822, 0.4465]
CIFAR_STD = [0.2470, 0.2435, 0.2616]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as the stack's jobs have: the plain loop trains beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@needs_file(MNIST)
@pytest.mark.usefixtures("one_thread")
def test_mnist_by_the_notes_net_is_within_two_points_of_a_plain_loop(
    stack: RunningStack, client: Client
) -> None:
    dataset = client.datasets.push("mnist", MNIST)
    layers: list[dict[str, Any]] = [
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 512},
        {"type": "ReLU"},
        {"type": "Linear", "out_features": 512},
        {"type": "ReLU"},
        {"type": "Linear", "out_features": 10},
    ]
    optimizer = {"type": "SGD", "lr": 0.1}
    job = submit(client, "mnist-mlp", dataset, layers, optimizer, epochs=5, batch_size=64)

    def make_net() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    labels = {split: plain_loop.labels_of_csv(MNIST, f"{split}.csv") for split in ("train", "test")}
    plain = accuracy_of_plain_loop(
        make_net, MNIST, labels, rows_of(stack, dataset), lr=0.1, momentum=0, batch_size=64
    )

    assert 0.85 < plain < 0.96
    accuracy = job.wait(timeout_s=100).metrics["test_accuracy"]
    print(f"test accuracy: service {accuracy:.4f}, plain loop {plain:.4f}")
    assert accuracy == pytest.approx(plain, abs=0.02)


@needs_file(CIFAR)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "channels",
    [
        pytest.param((8, 16, 32), id="thin"),
        pytest.param((32, 64, 128), id="wide", marks=pytest.mark.deep),
    ],
)
def test_cifar_by_three_blocks_with_batch_norm_is_within_five_points_of_a_plain_loop(
    stack: RunningStack, client: Client, channels: Sequence[int]
) -> None:
    dataset = client.datasets.push("cifar", CIFAR)
    layers = [layer for width in channels for layer in block(width)]
    layers += [{"type": "Flatten"}, {"type": "Linear", "out_features": 10}]
    optimizer = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    normalize = {"type": "Normalize", "mean": CIFAR_MEAN, "std": CIFAR_STD}
    job = submit(
        client,
        "cifar-cnn",
        dataset,
        layers,
        optimizer,
        epochs=5,
        batch_size=128,
        transforms={"train": [normalize]},
    )

    def make_net() -> nn.Module:
        parts: list[nn.Module] = []
        for before, width in zip((3, *channels), channels, strict=False):
            parts += [
                nn.Conv2d(before, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(16 * channels[-1], 10))

    labels = {split: plain_loop.labels_of_folders(CIFAR, split) for split in ("train", "test")}
    plain = accuracy_of_plain_loop(
        make_net,
        CIFAR,
        labels,
        rows_of(stack, dataset),
        lr=0.05,
        momentum=0.9,
        batch_size=128,
        transforms=[v2.Normalize(CIFAR_MEAN, CIFAR_STD)],
    )

    assert 0.40 < plain < 0.75
    accuracy = job.wait(timeout_s=500).metrics["test_accuracy"]
    print(f"test accuracy: service {accuracy:.4f}, plain loop {plain:.4f}")
    assert accuracy == pytest.approx(plain, abs=0.05)


def block(width: int) -> list[dict[str, Any]]:
    return [
        {"type": "Conv2d", "out_channels": width, "kernel_size": 3, "padding": 1},
        {"type": "BatchNorm2d"},
        {"type": "ReLU"},
        {"type": "MaxPool2d", "kernel_size": 2},
    ]


@pytest.mark.parametrize(("load", "epochs"), [(load_iris, 60), (load_breast_cancer, 15)])
def test_small_mlp_on_a_table_of_scikit_learn_is_right_on_93_of_100_test_rows(
    client: Client, load: Callable[[], Any], epochs: int
) -> None:
    bunch = load()
    names = [bunch.target_names[index] for index in bunch.target]
    rows = [[*values, name] for values, name in zip(bunch.data.tolist(), names, strict=True)]
    header = [*bunch.feature_names, "kind"]
    files = {
        "train.csv": csv_bytes([header, *(row for index, row in enumerate(rows) if index % 5)]),
        "test.csv": csv_bytes([header, *rows[::5]]),
    }
    name = load.__name__.removeprefix("load_").replace("_", "-")
    dataset = client.datasets.push(name, zip_bytes(files))
    layers: list[dict[str, Any]] = [
        {"type": "Linear", "out_features": 16},
        {"type": "ReLU"},
        {"type": "Linear", "out_features": len(bunch.target_names)},
    ]
    optimizer = {"type": "AdamW", "lr": 0.01}
    job = submit(client, name, dataset, layers, optimizer, epochs=epochs, batch_size=16, every=5)
    accuracy = job.wait(timeout_s=100).metrics["test_accuracy"]

    assert dataset.splits == {"train": len(rows) - len(rows[::5]), "test": len(rows[::5])}
    assert accuracy is not None
    print(f"{name}: test accuracy {accuracy:.4f}")
    assert accuracy >= 0.93


def test_linear_layer_on_diabetes_explains_as_much_as_linear_regression_on_the_same_rows(
    client: Client,
) -> None:
    bunch = load_diabetes(scaled=False)
    order = np.random.default_rng(0).permutation(len(bunch.data))
    rows = {"train": order[:310], "val": order[310:354], "test": order[354:]}
    table = np.column_stack([bunch.data, bunch.target])
    header = [*bunch.feature_names, "progression"]
    files = {f"{split}.csv": csv_bytes([header, *table[index].tolist()]) for split, index in rows.items()}
    dataset = client.datasets.push("diabetes", zip_bytes(files))
    job = submit(
        client,
        "diabetes",
        dataset,
        [{"type": "Linear", "out_features": 1}],
        {"type": "SGD", "lr": 0.05, "momentum": 0.9},
        epochs=1500,  # steps of one batch: the least squares' narrowest direction needs some hundred
        batch_size=310,
        every=1500,
        loss={"type": "MSELoss"},
        prepare=[{"type": "Standardize", "columns": "*"}],
    )
    r2 = job.wait(timeout_s=100).metrics["test_r2"]
    regression = LinearRegression().fit(bunch.data[rows["train"]], bunch.target[rows["train"]])
    test_x, test_y = bunch.data[rows["test"]], bunch.target[rows["test"]]
    instances = [dict(zip(bunch.feature_names, values, strict=True)) for values in test_x.tolist()]
    answers = [one.value for one in client.models.predict("diabetes", instances).predictions]

    assert dataset.splits == {split: len(index) for split, index in rows.items()}
    print(f"test R2: service {r2:.4f}, LinearRegression {r2_score(test_y, regression.predict(test_x)):.4f}")
    assert r2 == pytest.approx(r2_score(test_y, regression.predict(test_x)), abs=0.05)
    assert r2 == pytest.approx(r2_score(test_y, answers), abs=1e-4)


def submit(
    client: Client,
    name: str,
    dataset: Dataset,
    layers: list[dict[str, Any]],
    optimizer: dict[str, Any],
    *,
    epochs: int,
    batch_size: int,
    every: int = 1,
    **more: Any,
) -> JobHandle:
    trainer = {"epochs": epochs, "batch_size": batch_size, "seed": SEED, "precision": "fp32"}
    spec = {
        "name": name,
        "dataset": f"{dataset.name}@{dataset.version}",
        "model": {"type": "Sequential", "layers": layers},
        "optimizer": optimizer,
        "trainer": {**trainer, "device": "cpu", "checkpoint": {"every_epochs": every}},
        **more,
    }
    return client.jobs.submit(spec)


@dataclass(frozen=True)
class Rows:
    """Files of the archive: those trained on, those set aside for validation, those of the test split."""

    training: list[str]
    validation: list[str]
    test: list[str]


def rows_of(stack: RunningStack, dataset: Dataset) -> Rows:
    """Which rows the service set aside is read from what it stored; what they hold is not."""
    (folder,) = {path.parent for path in (stack.home / "artifacts/datasets" / dataset.id).rglob("data.arrow")}
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    with pa.memory_map(str(folder / "data.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
        files, labels = table.column("file").to_pylist(), table.column("label").to_numpy()
    training, validation = set_aside(manifest, Split(), labels[: manifest.splits["train"]])
    return Rows(
        [files[row] for row in training],
        [files[row] for row in validation],
        [files[row] for row in manifest.rows_of("test")],
    )


def accuracy_of_plain_loop(
    make_net: Callable[[], nn.Module],
    archive: Path,
    labels: dict[str, dict[str, str]],
    rows: Rows,
    *,
    lr: float,
    momentum: float,
    batch_size: int,
    transforms: Sequence[nn.Module] = (),
) -> float:
    """On the test rows. The order of rows in an epoch is the service's: two orders of the same rows are up
    to three points apart, which would drown what is compared here."""
    assert len(rows.validation) == 1000
    assert sorted(rows.training + rows.validation) == sorted(labels["train"])
    assert sorted(rows.test) == sorted(labels["test"])
    training = plain_loop.Pictures(archive, labels["train"], rows.training, *transforms)
    validation = plain_loop.Pictures(archive, labels["train"], rows.validation, *transforms)
    settings = plain_loop.Settings(
        lr=lr,
        momentum=momentum,
        batch_size=batch_size,
        epochs=5,
        seed=SEED,
        order=lambda epoch: permutation(SEED, epoch, len(rows.training)).tolist(),
    )
    net = plain_loop.train(make_net, training, validation, settings)
    test = plain_loop.Pictures(archive, labels["test"], rows.test, *transforms)
    _, accuracy = plain_loop.evaluate(net, test)
    return accuracy
