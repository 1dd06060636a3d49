"""The reference pages say what the registry has: a release of torch that changes a signature is seen here."""

from pathlib import Path

from core.nets.reference import pages
from tests.needs import is_newest_torch, missing

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_pages_are_those_of_the_registry() -> None:
    if not is_newest_torch():
        missing("the pages are of the torch that constraints.txt pins, which is not installed")
    folder = ROOT / "docs" / "reference"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    expected = pages()
    assert sorted(committed) == sorted(expected)
    stale = [name for name in expected if committed[name] != expected[name]]
    assert not stale, "run `make reference`, and look at what has changed"
