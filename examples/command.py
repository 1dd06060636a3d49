"""What the Python scripts share: their options, and following a job to the version it registers."""

import argparse
import json
from pathlib import Path
from typing import Any

from modelyard import JobHandle, ProgressUpdate


def options(about: str | None, data: str, **more: str) -> argparse.Namespace:
    """`--data` with this default, `--epochs`, and `--<name>` with a line of help for each of `more`."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--data", default=data, help="the data set's file (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of those in job.json")
    for name, what in more.items():
        parser.add_argument(f"--{name}", help=what)
    return parser.parse_args()


def read_job(script: str, epochs: int | None) -> dict[str, Any]:
    """The job.json beside a script."""
    spec: dict[str, Any] = json.loads(Path(script).with_name("job.json").read_text())
    if epochs is not None:
        spec["trainer"]["epochs"] = epochs
    return spec


def follow(job: JobHandle) -> str:
    """Prints what happens and what was measured; the version as `name@number`. Raises JobFailed."""
    for happening in job.watch():
        if not isinstance(happening, ProgressUpdate):
            print(happening.type, json.dumps(happening.data))
    ended = job.wait()
    assert ended.registered is not None  # a succeeded job has registered a version
    model = f"{ended.registered.model}@{ended.registered.version}"
    for name, value in sorted(ended.metrics.items()):
        print(f"{model} {name} {value}")
    return model
