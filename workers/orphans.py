"""A process that ends with the worker that started it, however that ended. Standard library alone."""

import os
import sys
import threading

#: The exit status of a process whose worker is gone; nobody is left to read it.
EXIT_ORPHANED = 3


def end_with_parent() -> None:
    """Ends this process as soon as standard input ends: the worker holds its other end, writes nothing, and
    a kill closes it. What lies in the working folder is cleared by the attempt that follows."""
    threading.Thread(target=_wait_for_end, name="parent", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(EXIT_ORPHANED)
