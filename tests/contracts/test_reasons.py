"""A security rule of ruff is set aside only with its reason on the line."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "modelyard",
    "core",
    "service",
    "workers",
    "migrations",
    "backups",
    "deploy",
    "benchmarks",
    "examples",
)


def test_every_security_rule_that_is_set_aside_has_its_reason_beside_it() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := re.search(r"# noqa: ([A-Z0-9, ]*\bS\d+[A-Z0-9, ]*)(.*)$", line))
        and len(found.group(2).strip(" #-")) < 5
    ]
    assert bare == []
