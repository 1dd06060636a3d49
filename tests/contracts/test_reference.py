"""The reference pages say what the registry has: a release of torch that changes a signature is seen here."""

from importlib import metadata
from pathlib import Path

import pytest

from core.nets.reference import pages

ROOT = Path(__file__).resolve().parents[2]


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))


def test_the_committed_pages_are_those_of_the_registry() -> None:
    for package in ("torch", "torchvision", "torchmetrics"):
        if metadata.version(package).split("+")[0] != pinned(package):
            pytest.skip(f"the pages are of {package} {pinned(package)}, which constraints.txt pins")
    folder = ROOT / "docs" / "reference"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    expected = pages()
    assert sorted(committed) == sorted(expected)
    stale = [name for name in expected if committed[name] != expected[name]]
    assert not stale, "run `make reference`, and look at what has changed"
