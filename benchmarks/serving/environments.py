"""The peers' own virtual environments, outside of the checkout: made once, then kept. Each has its packages
as pip resolves them, and the torch of this interpreter through links: all sides run the same torch, and none
is downloaded again."""

import hashlib
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

DEFAULT_FOLDER = Path("~/.cache/modelyard-bench")
#: These, and all that they require, are linked.
SHARED = ("torch", "numpy")
MADE = "made"


class CannotInstall(Exception):
    """pip did not do it; the message holds what it said."""


def python_of(folder: Path, name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of the environment, which is made where there is none of exactly this kind."""
    environment = folder.expanduser() / f"{name}-{_kind(requirements)}"
    python = environment / "bin" / "python"
    if not (environment / MADE).exists():
        shutil.rmtree(environment, ignore_errors=True)  # half made
        _run([sys.executable, "-m", "venv", str(environment)])
        _link_shared(environment)
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
        (environment / MADE).touch()
    return python


def _kind(requirements: tuple[str, ...]) -> str:
    versions = [f"{name}=={metadata.version(name)}" for name in SHARED]
    words = [sys.version, sys.prefix, *versions, *requirements]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def _link_shared(environment: Path) -> None:
    """A folder of links that the interpreter looks into after its own packages; pip counts what is there as
    installed, and never takes it away."""
    shared = environment / "shared"
    shared.mkdir()
    for distribution in _with_requirements(SHARED):
        for top in {Path(str(file)).parts[0] for file in distribution.files or ()}:
            if top not in ("..", "__pycache__") and not (shared / top).is_symlink():
                (shared / top).symlink_to(Path(str(distribution.locate_file(top))))
    site = next((environment / "lib").glob("python*")) / "site-packages"
    (site / "shared.pth").write_text(f"{shared}\n")


def _with_requirements(names: tuple[str, ...]) -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    wanted = [*names]
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        required = map(Requirement, found[name].requires or ())
        wanted += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [*found.values()]


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise CannotInstall(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
