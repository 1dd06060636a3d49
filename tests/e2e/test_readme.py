"""The README's walk, every line as it is written, on a fresh home: what a newcomer pastes works."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embed import running_stack

ROOT = Path(__file__).parents[2]
PORT = 8000

SHELL_BLOCKS, PYTHON_BLOCKS = (
    [
        block
        for block in re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
        if not block.startswith("make ")
    ]
    for language in ("sh", "python")
)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.timeout(300)
def test_the_walk_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    if not is_free(PORT):
        pytest.fail(f"the README says port {PORT}: end what listens there and run the test again")
    home = tmp_path / ".modelyard"
    walk = tmp_path / "walk"
    walk.mkdir()
    for name in (".venv", "examples"):
        (walk / name).symlink_to(Path(sys.prefix) if name == ".venv" else ROOT / name)
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for name in ("MODELYARD_HOME", "MODELYARD_URL", "MODELYARD_KEY"):
        environment.pop(name, None)
    with running_stack(home, port=str(PORT)):
        script = "set -euo pipefail\n" + "\n".join(SHELL_BLOCKS).replace(
            "curl -s", "curl --fail-with-body -s"
        )
        said = run(["bash", "-c", script], walk, environment)
        assert '"state":"ready"' in said
        assert '"layers":[' in said
        assert "event: end" in said
        assert said.count('"predictions":[{"label":"0"') == 2
        assert (walk / "preview.png").read_bytes().startswith(b"\x89PNG")
        load = "import torch; print(sorted(torch.load('weights.pt', weights_only=True)))"
        assert "'0.weight'" in run([sys.executable, "-c", load], walk, environment)
        for block in PYTHON_BLOCKS:
            said = run([sys.executable, "-c", block], walk, environment)
            accuracy = next(float(line) for line in said.splitlines() if re.fullmatch(r"0\.\d+|1\.0", line))
            assert accuracy > 0.9
            assert re.search(r"^1 0 ", said, re.MULTILINE)  # version 1 says that the picture is a 0


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
