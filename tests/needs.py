"""What a test needs of the machine and does not find."""

import os
from typing import NoReturn

import pytest


def missing(service: str) -> NoReturn:
    """A laptop may lack a service; CI may not."""
    if os.environ.get("CI"):
        pytest.fail(f"{service}; nothing is skipped on CI", pytrace=False)
    pytest.skip(service)
