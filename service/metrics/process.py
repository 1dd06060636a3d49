"""What this process takes of the machine, under the names that every Prometheus client gives it."""

import os
import resource
from functools import cache
from pathlib import Path

from service.metrics.text import Family

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc/self")


def families() -> list[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    virtual, resident = (_PROC / "statm").read_text().split()[:2]
    cpu = Family("process_cpu_seconds_total", "counter", "Processor time of the service's own process.")
    cpu.add(usage.ru_utime + usage.ru_stime)
    memory = Family("process_resident_memory_bytes", "gauge", "Memory that it holds.")
    memory.add(int(resident) * _PAGE_BYTES)
    space = Family("process_virtual_memory_bytes", "gauge", "Its address space.")
    space.add(int(virtual) * _PAGE_BYTES)
    files = Family("process_open_fds", "gauge", "Files and sockets that it has open.")
    files.add(len(os.listdir(_PROC / "fd")))
    most = Family("process_max_fds", "gauge", "How many it may have open.")
    most.add(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    start = Family("process_start_time_seconds", "gauge", "When it started, in seconds from the epoch.")
    start.add(_started_s(os.getpid()))
    return [cpu, memory, space, files, most, start]


@cache
def _started_s(pid: int) -> float:
    """From the machine's start, and the process's as it counts from there."""
    lines = Path("/proc/stat").read_text().splitlines()
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    # The name stands before the last parenthesis and may hold anything.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return booted + int(after_name[19]) / _TICKS_PER_S
