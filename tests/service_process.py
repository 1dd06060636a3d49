"""`python -m service` as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running_service import NO_BROKER


@contextmanager
def service_process(home: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Killed at the end of the block, where it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={
            **os.environ,
            "MODELYARD_HOME": str(home),
            "MODELYARD_PORT": "0",
            "MODELYARD_BROKER_URL": NO_BROKER,
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]", event: str) -> dict[str, Any]:
    """The next line of the log that says so."""
    assert process.stderr is not None
    for line in process.stderr:
        said = json.loads(line)
        if said["event"] == event:
            return dict(said)
    raise AssertionError(f"the service ended without saying {event}")
