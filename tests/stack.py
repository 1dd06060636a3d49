"""The whole stack, as a user has it after `modelyard up`: one for all end-to-end tests of a run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embed import RunningStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Ready, on a free port, with its own home in a short path; `url`, `key`, `key_file`, `home`, `pid`.

    Two slots, so that on two cores a job has one thread: with more, small nets crawl beside busy neighbours.
    """
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-e2e-") as folder,
        running_stack(Path(folder), slots="2") as running,
    ):
        yield running
