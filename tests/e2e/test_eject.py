"""A job's script, run without this project, gives the weights of the job to the bit."""

import io
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from core.eject.archive import fingerprint
from examples.digits import make_digits
from examples.linear_regression import make_data
from modelyard import Client
from tests.make_data import csv_bytes
from tests.needs import needs_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MNIST = DATA / "mnist-12k-csv-png.zip"
CIFAR = DATA / "cifar10-12k-folders-jpeg.zip"

#: No `.pth` file is read, so that the project, which is installed by one, can't be imported.
WITHOUT_US = [sys.executable, "-S"]
#: Long for a tutorial, and still read in a sitting.
MOST_LINES = 170

#: A name that would be code, if it stood in the script.
HOSTILE = '"""); import os; os.abort()  #'

Spec = dict[str, Any]
Push = Callable[[Client, Path], object]


def example(name: str, dataset: str, **changes: Any) -> Spec:
    spec: Spec = json.loads((EXAMPLES / name / "job.json").read_text())
    trainer = spec["trainer"] | changes.pop("trainer", {})
    return spec | {"dataset": dataset, "trainer": trainer} | changes


def layer(kind: str, **keywords: Any) -> Spec:
    return {"type": kind, **keywords}


def net(*layers: Spec) -> Spec:
    return layer("Sequential", layers=list(layers))


def push_table(client: Client, folder: Path) -> None:
    rng = np.random.default_rng(0)
    colours = ["red", "green", 'bl"ue', "ö'''"]
    rows = [
        [f"{a:.3f}", colours[k], int(z), f"{2 * a + k:.3f}", "yes" if a + z > 0.5 else "no"]
        for a, k, z in zip(
            rng.standard_normal(120), rng.integers(0, 4, 120), rng.integers(0, 2, 120), strict=True
        )
    ]
    path = folder / "mixed.csv"
    path.write_bytes(csv_bytes([["a", HOSTILE, "z", "y", "label"], *rows]))
    client.datasets.push("eject-table", path)


def push_sequences(client: Client, folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((96, 7, 4)).astype("float32")
    path = folder / "sequences.npz"
    np.savez(path, x=x, y=x.mean(axis=(1, 2)).astype("float32"))
    client.datasets.push("eject-sequences", path)


def push_patients(client: Client, folder: Path) -> None:
    make_data.write_zip(folder / "patients.zip")
    client.datasets.push("eject-patients", folder / "patients.zip")


def push_digits(client: Client, folder: Path) -> None:
    make_digits.write_zip(folder / "digits.zip")
    client.datasets.push("eject-digits", folder / "digits.zip")


SPECS: dict[str, tuple[Push, Spec]] = {
    "the notes' MLP": (
        lambda client, _: client.datasets.push("eject-mnist", MNIST),
        example("fashion_mnist", "eject-mnist", trainer={"epochs": 2}),
    ),
    "the notes' CNN on JPEGs with flips": (
        lambda client, _: client.datasets.push("eject-cifar", CIFAR),
        example("cifar10", "eject-cifar", trainer={"epochs": 1}),
    ),
    "linear regression by the example": (
        push_patients,
        example("linear_regression", "eject-patients", trainer={"epochs": 20}),
    ),
    "a table with categories, groups, averaged weights and a warm-up": (
        push_table,
        {
            "name": "mixed",
            "dataset": "eject-table",
            "target": "label",
            "inputs": ["a", HOSTILE, "z"],
            "prepare": [
                layer("Standardize", columns=["a"]),
                layer("OneHot", columns=[HOSTILE]),
            ],
            "model": net(layer("Linear", out_features=8), layer("ReLU"), layer("Linear", out_features=2)),
            "optimizer": layer("AdamW", lr=0.01, param_groups=[{"match": ".*bias", "weight_decay": 0.0}]),
            "scheduler": layer("OneCycleLR", max_lr=0.05),
            "trainer": {"epochs": 3, "batch_size": 16, "accumulate": 2, "ema": {"decay": 0.9}},
            "metadata": {"note": HOSTILE},
        },
    ),
    "a quantity whose scale is learned, until the steps are used up": (
        push_table,
        {
            "name": "scaled",
            "dataset": "eject-table",
            "target": "y",
            "inputs": ["a", "z"],
            "target_transform": [layer("Standardize")],
            "model": net(layer("Linear", out_features=8), layer("Tanh"), layer("Linear", out_features=1)),
            "loss": layer("HuberLoss", delta=0.5),
            "scheduler": layer("ReduceLROnPlateau", patience=0),
            "trainer": {"epochs": 9, "batch_size": 16, "max_steps": 31, "clip_grad_norm": 1.0},
        },
    ),
    "a GRU over sequences": (
        push_sequences,
        {
            "name": "gru",
            "dataset": "eject-sequences",
            "model": net(
                layer("GRU", hidden_size=6, bidirectional=True, output="mean"),
                layer("LayerNorm"),
                layer("Linear", out_features=1),
            ),
            "loss": layer("L1Loss"),
            "trainer": {"epochs": 2, "batch_size": 16},
        },
    ),
    "ResNet-18 with a frozen base": (
        push_digits,
        {
            "name": "resnet",
            "dataset": "eject-digits",
            "transforms": {"train": [layer("Resize", size=[32, 32]), layer("RGB")]},
            "model": layer("resnet18"),
            "freeze": [r"(conv1|bn1|layer[123])\..*"],
            "unfreeze": [{"match": r"layer3\..*", "epoch": 1}],
            "trainer": {"epochs": 2, "batch_size": 64, "max_steps": 30, "deterministic": True},
        },
    ),
    "mixed pictures, drawn row by row": (
        push_digits,
        {
            "name": "augmented",
            "dataset": "eject-digits",
            "transforms": {
                "train": [
                    layer("RandomCrop", size=[8, 8], padding=1),
                    layer("RandomRotation", degrees=[-10, 10]),
                    layer("TrivialAugmentWide"),
                    layer("Normalize", mean=[0.3], std=[0.4]),
                    layer("MixUp", alpha=0.2),
                ]
            },
            "model": net(
                layer("Conv2d", out_channels=8, kernel_size=3),
                layer("BatchNorm2d"),
                layer("ReLU"),
                layer("Flatten"),
                layer("Dropout", p=0.2),
                layer("Linear", out_features=10),
            ),
            "initialize": [layer("kaiming_normal_", layer="Conv2d", parameter="weight")],
            "trainer": {"epochs": 2, "batch_size": 64},
        },
    ),
}

#: A net, a convolution and a table; each of the others takes its time.
QUICK = {
    "the notes' MLP",
    "a table with categories, groups, averaged weights and a warm-up",
    "mixed pictures, drawn row by row",
}


@needs_file(MNIST)
@needs_file(CIFAR)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.deep]) for name in SPECS]
)
def test_a_script_without_us_gives_the_weights_of_the_job(
    client: Client, http: httpx2.Client, tmp_path: Path, name: str
) -> None:
    push, spec = SPECS[name]
    push(client, tmp_path)
    job = client.jobs.submit(spec).wait(timeout_s=200)
    last = next(iter(client.jobs.handle(job.id).checkpoints()))
    weights = client.checkpoints.download(last.id, tmp_path / "last.pt")
    expected = fingerprint(torch.load(weights, weights_only=True))

    folder = tmp_path / "ejected"
    with zipfile.ZipFile(io.BytesIO(client.jobs.eject(job.id))) as archive:
        archive.extractall(folder)
    where = json.loads((folder / "data.json").read_text())["path"]
    (folder / "data.arrow").write_bytes(http.get(where).content)
    ran = run_script(folder)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2] == expected
    assert ran.stdout.splitlines()[-1] == "[]", "modules of ours"
    assert expected in (folder / "README.md").read_text()
    script = (folder / "train.py").read_text()
    assert "abort" not in script
    assert script.count("\n") <= MOST_LINES
    assert is_formatted(folder / "train.py")


def run_script(folder: Path) -> "subprocess.CompletedProcess[str]":
    """`train.py`, and then which modules of ours it has loaded."""
    ask = "print([m for m in sys.modules if m.split('.')[0] in ('core', 'workers', 'service', 'modelyard')])"
    code = f"import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('train.py'); {ask}"
    environment = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [*WITHOUT_US, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def is_formatted(file: Path) -> bool:
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", str(file)]
    return subprocess.run(ruff, capture_output=True, check=False).returncode == 0
