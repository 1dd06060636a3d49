"""The stack of the session, spoken to by our client and by plain HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.embed import RunningStack
from examples.digits.make_digits import write_zip
from modelyard import Client


@pytest.fixture(scope="session")
def client(stack: RunningStack) -> Iterator[Client]:
    with Client(stack.url, stack.key) as client:
        yield client


@pytest.fixture(scope="session")
def http(stack: RunningStack) -> Iterator[httpx2.Client]:
    """With the admin's key; knows HTTP and nothing of ours."""
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx2.Client(base_url=stack.url, headers=headers, timeout=60, trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def digits_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits as 1,437 training and 360 test pictures, with a CSV for each."""
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    write_zip(path)
    return path
