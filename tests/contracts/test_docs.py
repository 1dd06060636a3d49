"""The documentation covers the code: what exists has its line, and what is written runs as written."""

import re
from pathlib import Path

from core.settings import Settings
from modelyard.cli.app import app
from modelyard.specs import JobErrorCode

ROOT = Path(__file__).parents[2]
PAGES = [page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
#: What every group of commands has beside its own.
OPTIONS = {"--help", "-h", "--version"}
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def test_every_setting_stands_in_operations_and_nothing_else_does() -> None:
    written = set(re.findall(r"^\| `(MODELYARD_[A-Z_]+)`", OPERATIONS, re.MULTILINE))
    assert written == {f"MODELYARD_{name.upper()}" for name in Settings.model_fields}


def test_every_reason_for_a_failed_job_stands_in_operations() -> None:
    section = OPERATIONS.partition("## Why a job failed")[2]
    assert set(re.findall(r"^\| `([a-z_]+)` ", section, re.MULTILINE)) == set(JobErrorCode)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets


def test_every_command_that_a_page_names_exists() -> None:
    named = {words for page in PAGES for words in re.findall(r"`modelyard ([a-z]+) ([a-z]+)\b", page)}
    groups = {name: set(app[name]) - OPTIONS for name in set(app) - OPTIONS}
    assert {("jobs", "pause"), ("datasets", "push")} <= named
    assert not [(group, command) for group, command in named if command not in groups[group]]


def test_every_local_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_picture_of_the_house_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    code = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    named = set(re.findall(r"\b([a-z]+)/", readme.partition("## Where things are")[2]))
    assert code <= named
