"""How much the service's memory grows while 300 MB are uploaded through PUT.

    python -m benchmarks.upload_memory

Reads the peak resident memory of the service process (VmHWM of /proc) before and after, having set it
back first. Exits 1 where the bar is missed.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from rich.console import Console

from deploy.embed import running_stack

UPLOAD_BYTES = 300 * 1000 * 1000
BAR_BYTES = 64 * 1000 * 1000

console = Console()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        upload = Path(folder) / "upload.bin"
        write_random(upload, UPLOAD_BYTES)
        with running_stack(Path(folder) / "home") as stack:
            service = service_pid(stack.pid)
            put(stack.url, stack.key, "warm", b"x,y\n1,2\n")
            reset_peak(service)
            before = memory(service, "VmHWM")
            began = time.monotonic()
            with upload.open("rb") as file:
                put(stack.url, stack.key, "large", file)
            seconds = time.monotonic() - began
            growth = memory(service, "VmHWM") - before
    is_missed = growth >= BAR_BYTES
    console.print(f"{UPLOAD_BYTES / 1e6:.0f} MB in {seconds:.1f} s ({UPLOAD_BYTES / 1e6 / seconds:.0f} MB/s)")
    console.print(
        f"peak memory of the service: {before / 1e6:.0f} MB before, {growth / 1e6:+.1f} MB during; "
        f"bar {BAR_BYTES / 1e6:.0f} MB: {'missed' if is_missed else 'held'}"
    )
    return 1 if is_missed else 0


def write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // 1_000_000):
            file.write(os.urandom(1_000_000))


def put(url: str, key: str, name: str, content: object) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    reply = httpx2.put(f"{url}/v1/datasets/{name}", content=content, headers=headers, timeout=300)
    if reply.status_code != 202:
        raise SystemExit(f"expected 202 for {name}, got {reply.status_code}: {reply.text}")


def service_pid(stack_pid: int) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        if parent == stack_pid and b"service" in words:
            return int(folder.name)
    raise SystemExit(f"no service among the children of {stack_pid}")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def memory(pid: int, name: str) -> int:
    """Bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/{pid}/status has no {name}")


if __name__ == "__main__":
    sys.exit(main())
