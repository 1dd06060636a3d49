"""Memory given back to the machine, and how much that was."""

import ctypes
import resource
from pathlib import Path
from typing import Any

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone


def give_back(held: list[Any]) -> int:
    """Drops what is in the list, and has the allocator return what it keeps of it; by how many bytes the
    process shrank. Whatever else allocates meanwhile counts against that. Blocks: unmapping a gigabyte takes
    tens of milliseconds, so it is not for the event loop."""
    before = resident_bytes()
    held.clear()
    if _trim is not None:
        _trim(0)
    return max(0, before - resident_bytes())


def resident_bytes() -> int:
    """What this process has in memory, mapped files among it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
