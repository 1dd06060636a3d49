"""A plugin's layer that does, as it is built or asked, what a file says: abort, hang, wait, raise."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.data.manifest import Kind
from core.nets.artifacts import Golden, VersionManifest
from modelyard.specs import Signature, Tensor
from tests.plugins import write_package

PACKAGE = "modelyard-trap"
ENTRY_POINTS = "[modelyard.layers]\nTrap = modelyard_trap:Trap\n"
CODE = '''
import os
import threading
import time
from pathlib import Path

from torch import nn


class Trap(nn.Module):
    """Beside `path`: `.build` or `.forward`, with what is to be done in it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.spring("build")

    def forward(self, x):
        self.spring("forward")
        return x

    def spring(self, when):
        file = Path(f"{self.path}.{when}")
        what = file.read_text() if file.exists() else ""
        if what:
            Path(f"{self.path}.reached").touch()
        if what == "abort":
            os.abort()
        if what == "abort once":
            file.unlink()
            os.abort()
        if what == "hang":
            threading.Event().wait()
        while what == "wait" and file.exists():
            time.sleep(0.005)
        if what == "raise":
            raise RuntimeError("sprung")
'''


def install(folder: Path) -> Path:
    return write_package(folder, PACKAGE, ENTRY_POINTS, CODE)


class Trapped:
    """A net of 4 features and 3 classes with a trap before it; `state` is what a version of it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.net = nn.Sequential(nn.Identity(), nn.Linear(4, 3))

    def set(self, when: str, what: str) -> None:
        """`when` it is next built, or a forward of it begins."""
        Path(f"{self.path}.{when}").write_text(what)

    def unset(self, when: str) -> None:
        Path(f"{self.path}.{when}").unlink(missing_ok=True)

    def is_reached(self) -> bool:
        return Path(f"{self.path}.reached").exists()

    @property
    def described(self) -> VersionManifest:
        layers = [
            {"type": "Trap", "path": str(self.path)},
            {"type": "Linear", "in_features": 4, "out_features": 3},
        ]
        return described({"type": "Sequential", "layers": layers}, [4])


def described(
    model: dict[str, Any], row_shape: list[int], golden: list[Golden] | None = None
) -> VersionManifest:
    return VersionManifest(
        task="classification",
        kind=Kind.ARRAYS,
        model=model,
        row_shape=row_shape,
        classes=["a", "b", "c"],
        transforms=[],
        prepare=[],
        signature=Signature(
            [Tensor("input", "FP32", [-1, *row_shape])],
            [Tensor("scores", "FP32", [-1, 3]), Tensor("label", "BYTES", [-1])],
        ),
        golden=golden or [],
        tolerance=1e-6,
        raw_shape=row_shape,
        raw_dtype="float32",
    )


def rows(count: int) -> list[list[float]]:
    return [[float(x) for x in row] for row in torch.arange(4.0 * count).view(count, 4) / 7]
