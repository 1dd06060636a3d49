"""The peak memory of a process and all its descendants, sampled: what is theirs, not the pages of files that
the system may take back."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_S = 0.25


class Peak:
    """Samples while its block runs. `bytes` is the largest sum of anonymous and shared memory, less what
    there was as it began where the process was there before."""

    def __init__(self, pid: int, is_above_start: bool = False) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._start = held_bytes(pid) if is_above_start else 0
        self._most = 0

    @property
    def bytes(self) -> int:
        return max(0, self._most - self._start)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.is_set():
            self._most = max(self._most, held_bytes(self._pid))
            time.sleep(EVERY_S)


def held_bytes(pid: int) -> int:
    return sum(own_bytes(one) for one in family(pid))


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        parents.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:  # grows while it is read
        found += parents.get(one, [])
    return found


def own_bytes(pid: int) -> int:
    """Anonymous and shared memory of this process alone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
