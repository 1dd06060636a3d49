"""The example package built and installed into a folder, and registries that forget a plugin after a test."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.data.tasks import LOSS_TASKS
from core.nets import plugins, registry
from core.nets.components import FAMILIES
from core.nets.components.facts import ARITY
from core.nets.components.transforms import FACTS

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


def install_example(folder: Path) -> Path:
    """Built by pip from a copy, since a build writes beside its sources; the folder for `sys.path`."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def write_package(folder: Path, package: str, entry_points: str, code: str, version: str = "1.0") -> Path:
    """A package as an installer leaves it: one module and its metadata."""
    module = package.replace("-", "_")
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    (folder / f"{module}.py").write_text(code)
    return folder


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """The folders' packages are installed within, and what is loaded of them is forgotten after."""
    tables = [family.own for family in FAMILIES.values()]
    tables += [ARITY, FACTS, LOSS_TASKS, plugins._LOADED]  # type: ignore[list-item]  # each keeps its kind
    kept = [dict(table) for table in tables]
    modules = set(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        del sys.path[: len(folders)]
        for name in set(sys.modules) - modules:
            if any(str(folder) in str(getattr(sys.modules[name], "__file__", "")) for folder in folders):
                del sys.modules[name]
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.update(before)
        registry._entry.cache_clear()
