"""Runs a plain script in a process of its own, as its user would."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.training.cases import Case, Precision
from benchmarks.training.memory import Peak
from benchmarks.training.results import Result, read

#: Set by our Makefile; a plain script has what torch's own defaults are.
OURS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


class ScriptFailed(Exception):
    """It ended with an error; the message holds what it said."""


def run(script: str, case: Case, folder: Path, precision: Precision) -> Result:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    arguments = [case.name, str(folder), str(case.epochs), precision]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.training.{script}", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes to us alone
    )
    try:
        with Peak(process.pid) as peak:
            said, complained = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise ScriptFailed(f"{script} on {case.name} ended with {process.returncode}:\n{complained[-2000:]}")
    result = read(said)
    return Result(result.rows, result.epochs_s, result.whole_s, result.test_accuracy, peak.bytes)
