"""`modelyard up|serve|worker|migrate|backup|restore`: become one of the server's processes, as the options
say."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NoReturn

from modelyard.errors import ModelyardError

INSTALL = "pip install 'modelyard[server]'"

#: What each process cannot start without; the first module is the one that runs.
NEEDS = {
    "up": ("deploy.local", "service", "workers", "migrations", "litestar", "celery", "sqlalchemy", "torch"),
    "serve": ("service", "litestar", "sqlalchemy", "torch"),
    "worker": ("workers", "celery", "sqlalchemy", "torch"),
    "migrate": ("migrations", "alembic", "sqlalchemy"),
    "backup": ("backups", "migrations", "alembic", "sqlalchemy"),
    "restore": ("backups", "migrations", "alembic", "sqlalchemy"),
}


def up(
    *,
    home: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    slots: int | None = None,
) -> None:
    """Start the whole stack on this machine: broker, service and workers. Ctrl-C stops it.

    Args:
        home: database, artifacts, socket, logs and admin key; default ~/.modelyard
        host: address the service binds; default 127.0.0.1
        port: port the service binds; default 8000, 0 takes a free one
        slots: jobs that train at once
    """
    _become("up", home=home, host=host, port=port, slots=slots)


def serve(
    *,
    home: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    inference_processes: int | None = None,
) -> None:
    """Start the HTTP service alone.

    Args:
        home: database, artifacts and admin key, where no URL names others
        host: address to bind
        port: port to bind
        inference_processes: processes that compute predictions; 0 computes them in the service itself
    """
    _become("serve", home=home, host=host, port=port, inference_processes=inference_processes)


def worker(
    *,
    home: Path | None = None,
    pool: Literal["cpu", "gpu", "data"] | None = None,
    slots: int | None = None,
) -> None:
    """Start one worker alone.

    Args:
        home: database, artifacts and socket, where no URL names others
        pool: which queue it serves
        slots: jobs it runs at once
    """
    _become("worker", home=home, pool=pool, slots=slots)


def migrate(*, home: Path | None = None) -> None:
    """Bring the database to the newest schema.

    Args:
        home: where the database is, where no URL names another
    """
    _become("migrate", home=home)


def backup(
    file: Path, /, *, rows_only: bool = False, allow_missing: bool = False, home: Path | None = None
) -> None:
    """Write every row and every file that rows name into one new file, beside whatever runs.

    Args:
        file: where to; it must not be there yet
        rows_only: leave the files out, where they are in a bucket that keeps its own past
        allow_missing: go on where files that rows need are not in storage, and name them
        home: database and artifacts, where no URL names others
    """
    flags = [
        flag for flag, is_set in (("--rows-only", rows_only), ("--allow-missing", allow_missing)) if is_set
    ]
    _become("backup", "backup", *flags, "--", str(file), home=home)


def restore(file: Path, /, *, force: bool = False, home: Path | None = None) -> None:
    """Put a backup into an empty database and storage, of either kind; nothing may run on them meanwhile.

    Args:
        file: what `modelyard backup` wrote
        force: replace all rows that are there; files that are there stay beside those of the backup
        home: database and artifacts, where no URL names others
    """
    _become("restore", "restore", *(["--force"] if force else []), "--", str(file), home=home)


def _become(process: str, *arguments: str, **options: str | int | Path | None) -> NoReturn:
    """Replaces this process, so that signals reach the server's own. What is not given stays as the
    environment has it. Raises ModelyardError where the server part is not installed."""
    missing = [module for module in NEEDS[process] if not _is_installed(module)]
    if missing:
        raise ModelyardError(
            f"`modelyard {process}` needs the server part, of which {', '.join(missing)} is missing here; "
            f"get it with {INSTALL}"
        )
    environment = os.environ | {
        f"MODELYARD_{name.upper()}": str(value.absolute() if isinstance(value, Path) else value)
        for name, value in options.items()
        if value is not None
    }
    sys.stdout.flush()
    # -P: a folder called core or service where the user stands is not ours.
    command = [sys.executable, "-P", "-m", NEEDS[process][0], *arguments]
    os.execvpe(sys.executable, command, environment)  # noqa: S606 - a list of our own, no shell


def _is_installed(module: str) -> bool:
    """Without importing it; of a dotted name, only its package is."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
