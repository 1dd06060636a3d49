"""Runs the plain forward in a process of its own, with torch set as the stack sets it for the service."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.serving.results import Forward
from benchmarks.serving.servers import CHECKOUT

#: As in `deploy.local`.
AS_THE_SERVICE = {"OMP_WAIT_POLICY": "PASSIVE"}


class ForwardFailed(Exception):
    """It ended with an error; the message holds what it said."""


def answers(case: str, folder: Path) -> Forward:
    """What the net says of the pictures; nothing is measured."""
    return run(case, folder, 0)


def run(case: str, folder: Path, seconds: float) -> Forward:
    """`seconds` at each batch size."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.forward", case, str(folder), str(seconds)],
        cwd=CHECKOUT,
        env=AS_THE_SERVICE | dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise ForwardFailed(f"the forward of {case} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return msgspec.json.decode(ended.stdout.strip().splitlines()[-1], type=Forward)
