"""A worker's process as an operator starts it: what it refuses, and that it ends where it cannot work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running_service import NO_BROKER


def start(home: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "MODELYARD_HOME": str(home), "MODELYARD_BROKER_URL": NO_BROKER, **settings}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_solo_guard_refuses_a_pool_that_runs_jobs_twice_or_has_no_children(pool: str, tmp_path: Path) -> None:
    refused = start(tmp_path, "celery", "-A", "workers.app", "worker", f"--pool={pool}")
    assert refused.returncode == 1
    assert "a worker needs --pool=threads" in refused.stderr
    assert not list(tmp_path.glob("*.db*"))


def test_a_worker_that_cannot_work_ends_and_takes_no_wake_ups(tmp_path: Path) -> None:
    settings = {"MODELYARD_POOL": "data", "MODELYARD_STORAGE_URL": "ftp://nowhere"}
    refused = start(tmp_path, "workers", **settings)
    assert refused.returncode == 1
    assert "the worker cannot start: MODELYARD_STORAGE_URL: expected file:// or s3://" in refused.stderr
