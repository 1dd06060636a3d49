"""The import walls: `sys.modules` of a fresh interpreter for each entry point, and the import contracts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SERVER = {
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "PIL",
    "sqlalchemy",
    "alembic",
    "celery",
    "kombu",
    "litestar",
}
OURS = {"core", "service", "workers", "migrations", "deploy"}


def loaded_by(module: str) -> set[str]:
    """The names in `sys.modules` after `import module`, cut after the first and after the second level."""
    code = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {".".join(name.split(".")[:depth]) for name in modules for depth in (1, 2)}


@pytest.mark.parametrize(
    ("module", "walled_off"),
    [
        ("modelyard", SERVER | OURS),
        ("modelyard.client", SERVER | OURS),
        ("modelyard.cli", SERVER | OURS),
        ("modelyard.specs", SERVER | OURS | {"httpx2", "rich", "cyclopts"}),
        ("core.settings", SERVER),
        ("core.db.models", SERVER - {"sqlalchemy"}),
        ("deploy.local", SERVER | OURS - {"core", "deploy"} | {"modelyard"}),
        ("migrations", SERVER - {"sqlalchemy", "alembic"} | OURS - {"core", "migrations"}),
        ("workers.app", {"torch", "torchvision", "litestar", "uvicorn", "service"}),
        (
            "workers.ingest",
            {"torch", "torchvision", "sqlalchemy", "celery", "kombu", "litestar", "service", "core.db"},
        ),
        ("workers.fetch", {"sqlalchemy", "celery", "kombu", "litestar", "service", "core.db", "core.queue"}),
        ("core.data.prepare", {"torch", "torchvision", "sqlalchemy", "celery", "litestar"}),
        ("service.app", {"workers", "celery.worker", "captum"}),
        ("service.prediction_bodies.arrow_rows", {"torch", "torchvision", "sqlalchemy", "litestar"}),
        ("service.prediction_bodies.csv_rows", {"torch", "torchvision", "sqlalchemy", "litestar"}),
    ],
)
def test_entry_point_loads_nothing_behind_its_wall(module: str, walled_off: set[str]) -> None:
    assert loaded_by(module) & walled_off == set()


def test_walls_are_seen_when_they_are_broken() -> None:
    assert {"sqlalchemy", "core.db"} <= loaded_by("core.db.models")


def test_client_is_imported_in_under_300_ms() -> None:
    """The fastest of five fresh interpreters: the machine may be busy, the import may not be slow."""
    code = "import time; t = time.perf_counter(); import modelyard; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.3, times


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
