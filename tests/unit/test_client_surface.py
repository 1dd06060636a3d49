"""What `import modelyard` offers and what it costs."""

import importlib
import inspect
import subprocess
import sys
import time

import pytest

import modelyard
from modelyard.client import AsyncClient, Client

HEAVY = (
    "torch",
    "sqlalchemy",
    "celery",
    "litestar",
    "numpy",
    "pyarrow",
    "httpx2",
    "cyclopts",
    "rich",
    "yaml",
)


def test_all_that_is_exported_is_there() -> None:
    assert modelyard.__all__ == sorted(modelyard.__all__)
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None
        assert name in dir(modelyard)


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match=r"it offers .*AsyncClient"):
        _ = modelyard.Cleint  # type: ignore[attr-defined]


def test_import_loads_nothing_heavy_and_takes_less_than_three_tenths_of_a_second() -> None:
    code = f"import sys, modelyard, modelyard.specs; print([m for m in {HEAVY!r} if m in sys.modules])"
    took_s = []
    for _ in range(3):
        started_s = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took_s.append(time.perf_counter() - started_s)
        assert done.stdout.strip() == "[]"
    assert min(took_s) < 0.3


def test_the_client_loads_no_server_and_no_command_line() -> None:
    names = ("torch", "sqlalchemy", "celery", "litestar", "cyclopts", "core", "service", "workers")
    code = f"import sys; from modelyard import Client; print([m for m in {names!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "resource",
    ["datasets", "jobs", "models", "batch_predictions", "checkpoints", "uploads", "keys", "webhooks"],
)
def test_both_clients_offer_the_same_methods(resource: str) -> None:
    def methods(client: object) -> dict[str, str]:
        part = getattr(client, resource)
        names = [name for name in dir(part) if not name.startswith("_")]
        return {name: str(inspect.signature(getattr(part, name))) for name in names}

    with Client(key="k") as client:
        assert methods(client) == methods(AsyncClient(key="k"))
        assert methods(client)


def test_every_public_method_says_what_it_does() -> None:
    for module in ("datasets", "jobs", "models", "batch_predictions", "checkpoints", "keys", "webhooks"):
        for _, kind in inspect.getmembers(
            importlib.import_module(f"modelyard.resources.{module}"), inspect.isclass
        ):
            if kind.__module__ == f"modelyard.resources.{module}":
                assert kind.__doc__
