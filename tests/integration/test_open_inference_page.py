"""docs/open-inference.md runs as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import torch
from torch import nn

from core.nets.transforms import resolve
from modelyard.specs import Signature, Tensor
from tests import described
from tests.triton import Zoo

PAGE = (Path(__file__).parents[2] / "docs" / "open-inference.md").read_text()


def register_digits(zoo: Zoo) -> None:
    """Grey images of 8 x 8, as the README's are."""
    manifest, _ = described.images()
    torch.manual_seed(6)
    linear = {"type": "Linear", "in_features": 64, "out_features": 4}
    manifest = msgspec.structs.replace(
        manifest,
        model={"type": "Sequential", "layers": [{"type": "Flatten"}, linear]},
        signature=Signature([Tensor("input", "UINT8", [-1, 1, 8, 8])], manifest.signature.outputs),
        image_mode="L",
        row_shape=[1, 8, 8],
        transforms=resolve([]),
    )
    zoo.register("digits-cnn", manifest, nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))


def test_the_page_runs_as_written(zoo: Zoo, tmp_path: Path) -> None:
    register_digits(zoo)
    (tmp_path / ".modelyard").mkdir()
    (tmp_path / ".modelyard" / "admin.key").write_text(zoo.owner.key + "\n")
    (tmp_path / "pictures" / "test").mkdir(parents=True)
    picture = described.encoded(described.pictures(1, 8, 8)[0])
    (tmp_path / "pictures" / "test" / "0000.png").write_bytes(picture)
    shell, python = (
        re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for language in ("sh", "python")
    )
    assert (len(shell), len(python)) == (1, 1)
    script = "set -euo pipefail\n" + shell[0].replace("curl -s", "curl --fail-with-body -s")
    said = run(["bash", "-c", script.replace("127.0.0.1:8000", zoo.address)], tmp_path)
    assert '"platform":"pytorch_eager"' in said
    assert '"max_batch_size":10000' in said
    assert '"datatype":"BYTES","shape":[1,3]' in said
    assert '"inference_count":1' in said
    said = run([sys.executable, "-c", python[0].replace("127.0.0.1:8000", zoo.address)], tmp_path)
    assert said.split()[0] in described.CLASSES
    assert said.split()[2] == "1"


def run(command: list[str], home: Path) -> str:
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        command, cwd=home, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
