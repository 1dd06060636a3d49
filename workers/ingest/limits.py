"""The bounds that the ingest process sets on itself before it touches an upload."""

import os
import resource
import signal
from types import FrameType

from core.errors import Invalid

#: Largest single file ingest may write: a spooled archive or the Arrow file.
MAX_FILE_BYTES = 64 * 1024**3
MAX_OPEN_FILES = 256

# Between the soft CPU limit, which ends the run with a problem, and the hard one, which kills.
_CPU_GRACE_S = 5
_WALL_GRACE_S = 60


def set_environment() -> None:
    """Read when the libraries load: without these, thread arenas alone use up the address space of a
    small limit on a machine with many cores."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("ARROW_IO_THREADS", "1")


def set_limits(memory_bytes: int, cpu_s: int) -> None:
    """`memory_bytes` bounds the address space (the libraries alone take 300 MiB), `cpu_s` the CPU seconds of
    all threads together; twice as long on the clock kills."""
    signal.signal(signal.SIGXCPU, _out_of_time)
    # A library that runs out of memory on a thread of its own may wait for ever and use no CPU time; the
    # alarm's default action ends the process.
    signal.alarm(2 * cpu_s + _WALL_GRACE_S)
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _lower(resource.RLIMIT_CPU, cpu_s, cpu_s + _CPU_GRACE_S)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, soft: int, hard: int | None = None) -> None:
    """A limit that the parent has set lower already stays."""
    ceiling = resource.getrlimit(what)[1]
    wanted = hard if hard is not None else soft
    hard = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(what, (min(soft, hard), hard))


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    # The kernel repeats the signal every second; what is left of the grace is for tidying up.
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    raise Invalid(
        "the upload took more CPU time than ingest may use; make it smaller, "
        "or raise MODELYARD_INGEST_TIMEOUT_S",
        code="too_slow",
    )
