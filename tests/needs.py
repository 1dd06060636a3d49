"""What a test needs of the machine and does not find."""

import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def missing(service: str) -> NoReturn:
    """A laptop may lack a service; CI may not."""
    if os.environ.get("CI"):
        pytest.fail(f"{service}; nothing is skipped on CI", pytrace=False)
    pytest.skip(service)


def needs_file(file: Path) -> pytest.MarkDecorator:
    """A checkout alone lacks the shared data; CI has it, so there the test fails where it is missing."""
    is_skipped = not file.exists() and not os.environ.get("CI")
    return pytest.mark.skipif(is_skipped, reason=f"{file.name} is not on this machine")


def is_newest_torch() -> bool:
    """What is written of all that torch has is written of the one in constraints.txt; `make test-torch-min`
    runs on an older one."""
    pinned = re.search(r"^torch==(.+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    return pinned is not None and version("torch").partition("+")[0] == pinned[1]
